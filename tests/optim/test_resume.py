"""Stopping, saving, loading into new objects and going on is the same as not stopping."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import BASES, PAIRS, VARIANTS, Careless, build, same


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 2)
    )


def train(model: nn.Module, optimizer: Any, steps: range) -> None:
    for step in steps:
        source = torch.Generator().manual_seed(step)
        x, y = torch.randn(6, 4, generator=source), torch.randint(2, (6,), generator=source)

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)


def through_a_file(record: Any) -> Any:
    file = io.BytesIO()
    torch.save(record, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def checkpoint(model: nn.Module, optimizer: Any) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }


def make(variant: str, base: str) -> tuple[nn.Module, Any]:
    model = network()
    return model, build(variant, base, model, model=model)


@pytest.mark.parametrize(("variant", "base"), PAIRS)
def test_through_a_file(variant: str, base: str) -> None:
    model, optimizer = make(variant, base)
    train(model, optimizer, range(5))
    record = through_a_file(checkpoint(model, optimizer))
    train(model, optimizer, range(5, 10))

    torch.manual_seed(99)
    fresh, other = make(variant, base)
    fresh.load_state_dict(record["model"])
    other.load_state_dict(record["optimizer"])
    torch.set_rng_state(record["random"])
    train(fresh, other, range(5, 10))
    assert same(checkpoint(model, optimizer), checkpoint(fresh, other))


def test_a_careless_wrapper_is_noticed() -> None:
    """One that saves its groups but not the state of its base."""

    class Forgetful(Careless):
        def state_dict(self) -> dict[str, Any]:
            return {"state": {}, "param_groups": self.base.state_dict()["param_groups"]}

    results = []
    for resume in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        optimizer = Forgetful(torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9))
        train(model, optimizer, range(5))
        if resume:
            record = through_a_file(optimizer.state_dict())
            optimizer = Forgetful(torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9))
            optimizer.load_state_dict(record)
        train(model, optimizer, range(5, 7))
        results.append(model.state_dict())
    assert not same(*results)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
@pytest.mark.parametrize(("variant", "base"), PAIRS)
def test_a_copy_goes_on_alike_and_apart(variant: str, base: str, clone: Any) -> None:
    model, optimizer = make(variant, base)
    train(model, optimizer, range(3))
    random = torch.get_rng_state()
    fresh, other = clone((model, optimizer))
    assert type(other) is type(optimizer) and other.model is fresh
    assert other.param_groups[0]["params"][0] is fresh[0].weight
    assert other.param_groups is other.base.param_groups and other.state is other.base.state
    train(model, optimizer, range(3, 6))
    torch.set_rng_state(random)
    train(fresh, other, range(3, 6))
    assert same(checkpoint(model, optimizer), checkpoint(fresh, other))
    train(fresh, other, range(6, 7))
    assert not same(model.state_dict(), fresh.state_dict())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_copy_with_a_scheduler(clone: Any) -> None:
    """A scheduler hangs its count on the optimizer; the copy's belongs to the copy."""
    model, optimizer = make("ASAM", "SGD")
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    train(model, optimizer, range(2))
    scheduler.step()
    fresh, other = clone((model, optimizer))
    before = model[0].weight.clone()
    train(fresh, other, range(2, 3))
    assert torch.equal(model[0].weight, before)
    assert other.param_groups[0]["lr"] == 0.025


@pytest.mark.parametrize(("variant", "base"), PAIRS)
def test_the_state_of_a_bare_base_loads_into_the_wrapper_and_back(variant: str, base: str) -> None:
    model = network()
    bare = BASES[base](model.named_parameters())
    model(torch.randn(5, 4)).square().sum().backward()
    bare.step()
    twin = copy.deepcopy(model)
    optimizer = build(variant, base, twin)
    optimizer.load_state_dict(through_a_file(bare.state_dict()))
    back = BASES[base](copy.deepcopy(model).named_parameters())
    back.load_state_dict(through_a_file(optimizer.state_dict()))
    assert same(bare.state_dict()["state"], optimizer.state_dict()["state"])
    assert same(bare.state_dict()["state"], back.state_dict()["state"])
    for group in (optimizer.param_groups[0], back.param_groups[0]):
        known = {key: group[key] for key in bare.param_groups[0] if key != "params"}
        assert same(known, {key: bare.param_groups[0][key] for key in known})
    back.step()
    optimizer.step()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_bare_state_says_nothing_about_rho(variant: str) -> None:
    """So each group keeps its own."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    bare = torch.optim.SGD([{"params": layer.named_parameters()} for layer in model], lr=0.1)
    groups = [
        {"params": list(model[0].named_parameters()), "sam_rho": 0.0},
        {"params": list(model[1].named_parameters()), "sam_rho": 0.3},
    ]
    optimizer = VARIANTS[variant](torch.optim.SGD(groups, lr=0.1))
    optimizer.load_state_dict(bare.state_dict())
    assert [group["sam_rho"] for group in optimizer.param_groups] == [0.0, 0.3]
    optimizer.param_groups[0]["sam_rho"] = 0.7
    other = VARIANTS[variant](torch.optim.SGD(groups, lr=0.1))
    other.load_state_dict(optimizer.state_dict())
    assert [group["sam_rho"] for group in other.param_groups] == [0.7, 0.3]


def test_groups_and_state_stay_the_bases_own_after_loading() -> None:
    """Loading replaces both in the base; the wrapper must not be left with the old ones."""
    model, optimizer = make("SAM", "Adam")
    train(model, optimizer, range(1))
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups is optimizer.base.param_groups
    assert optimizer.state is optimizer.base.state
    optimizer.param_groups[0]["lr"] = 0.0
    before = model[0].weight.clone()
    train(model, optimizer, range(1, 2))
    assert torch.equal(before, model[0].weight)


def test_hooks_of_state_dicts_fire_once() -> None:
    _, optimizer = make("SAM", "SGD")
    seen: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda *_: seen.append("before save"))
    optimizer.base.register_state_dict_post_hook(lambda *_: seen.append("after save"))
    optimizer.base.register_load_state_dict_pre_hook(lambda *_: seen.append("before load"))
    optimizer.register_load_state_dict_post_hook(lambda *_: seen.append("after load"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["before save", "after save", "before load", "after load"]
