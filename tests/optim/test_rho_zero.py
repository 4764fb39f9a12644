"""With rho = 0 and ``model=``, every variant is its base optimizer, bit for bit.

That includes BatchNorm statistics, dropout masks and the random stream afterwards; so the second
pass looks at the network of the first, and leaves no trace of having been.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cases import BASES, OTHERS_SLOWLY, PAIRS, VARIANTS, build, same


class Net(nn.Module):
    """Statistics of both kinds (exponential and cumulative), dropout, and a counter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.InstanceNorm2d(4, track_running_stats=True),
            nn.Dropout2d(0.5),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, 8),
            nn.BatchNorm1d(8, momentum=None),
            nn.Dropout(0.5),
            nn.Linear(8, 3),
        )
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls % 2:
            self.calls = self.calls + 0  # replaced rather than changed in place
        return self.body(x) * (1 + 0.1 * torch.rand(()))


def data(steps: int = 6) -> list[tuple[Tensor, Tensor]]:
    source = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, 1, 6, 6, generator=source), torch.randint(3, (8,), generator=source))
        for _ in range(steps)
    ]


def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x), y)


def zero_grad_first(optimizer: Any, model: nn.Module, x: Tensor, y: Tensor, sharp: bool) -> None:
    optimizer.zero_grad()
    loss_of(model, x, y).backward()
    if sharp:
        with optimizer.perturbed():
            loss_of(model, x, y).backward()
    optimizer.step()


def zero_grad_before_backward(
    optimizer: Any, model: nn.Module, x: Tensor, y: Tensor, sharp: bool
) -> None:
    """The order of Lightning, and of many a loop."""
    loss = loss_of(model, x, y)
    optimizer.zero_grad()
    loss.backward()
    if sharp:
        with optimizer.perturbed():
            loss_of(model, x, y).backward()
    optimizer.step()


def zero_grad_last(optimizer: Any, model: nn.Module, x: Tensor, y: Tensor, sharp: bool) -> None:
    zero_grad_first(optimizer, model, x, y, sharp)
    optimizer.zero_grad()


def accumulation(optimizer: Any, model: nn.Module, x: Tensor, y: Tensor, sharp: bool) -> None:
    def passes() -> None:
        for part in (slice(0, 3), slice(3, 8)):
            loss_of(model, x[part], y[part]).backward()

    optimizer.zero_grad()
    passes()
    if sharp:
        with optimizer.perturbed():
            passes()
    optimizer.step()


def forward_fails_at_first(
    optimizer: Any, model: nn.Module, x: Tensor, y: Tensor, sharp: bool
) -> None:
    """Out of memory, say, and tried again; the masks of the failed try are not those to replay."""
    with pytest.raises(RuntimeError):
        model(x[:, :, :1])
    zero_grad_first(optimizer, model, x, y, sharp)


def a_look_in_between(optimizer: Any, model: nn.Module, x: Tensor, y: Tensor, sharp: bool) -> None:
    """A forward without backward (a metric, an evaluation) is no part of the first pass."""
    optimizer.zero_grad()
    model(x).argmax(1)
    loss_of(model, x, y).backward()
    with torch.no_grad():
        model(x)
    if sharp:
        with optimizer.perturbed():
            loss_of(model, x, y).backward()
    optimizer.step()


def with_closure(optimizer: Any, model: nn.Module, x: Tensor, y: Tensor, sharp: bool) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        loss.backward()
        return loss

    optimizer.step(closure)


def lightning_closure(optimizer: Any, model: nn.Module, x: Tensor, y: Tensor, sharp: bool) -> None:
    def closure() -> Tensor:
        loss = loss_of(model, x, y)
        optimizer.zero_grad()
        loss.backward()
        return loss

    optimizer.step(closure)


ORDERS = [
    zero_grad_first,
    zero_grad_before_backward,
    zero_grad_last,
    accumulation,
    forward_fails_at_first,
    a_look_in_between,
    with_closure,
    lightning_closure,
]


def run(model: nn.Module, optimizer: Any, order: Any, sharp: bool) -> dict[str, Any]:
    torch.manual_seed(2)
    for x, y in data():
        order(optimizer, model, x, y, sharp)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict()["state"],
        "random": torch.get_rng_state(),
    }


def both(variant: str, base: str, order: Any, *, given: bool = True) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = Net()
    twin = copy.deepcopy(model)
    optimizer = build(variant, base, twin, rho=0.0, model=twin if given else None)
    bare = BASES[base](model.named_parameters())
    return run(model, bare, order, False), run(twin, optimizer, order, True)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.__name__)
@pytest.mark.parametrize("variant", OTHERS_SLOWLY)
def test_every_order_of_calls(variant: str, order: Any) -> None:
    bare, wrapped = both(variant, "SGD", order)
    assert same(bare, wrapped)


@pytest.mark.parametrize(("variant", "base"), PAIRS)
def test_every_base(variant: str, base: str) -> None:
    bare, wrapped = both(variant, base, zero_grad_first)
    assert same(bare, wrapped)


def test_without_the_model_it_is_not() -> None:
    bare, wrapped = both("SAM", "SGD", zero_grad_first, given=False)
    assert not same(bare["random"], wrapped["random"])
    assert not same(bare["model"]["calls"], wrapped["model"]["calls"])


def test_statistics_are_those_of_the_first_pass_also_after_an_exception() -> None:
    model = Net()
    optimizer = build("SAM", "SGD", model, model=model)
    x, y = data(1)[0]
    loss_of(model, x, y).backward()
    buffers = copy.deepcopy(dict(model.named_buffers()))
    random = torch.get_rng_state()
    with pytest.raises(KeyError), optimizer.perturbed():
        loss_of(model, x, y).backward()
        assert not same(buffers, dict(model.named_buffers()))
        raise KeyError
    assert same(buffers, dict(model.named_buffers()))
    assert torch.equal(random, torch.get_rng_state())


def test_modes_momenta_and_counters_stay() -> None:
    model = Net()
    model.body[1].eval()
    model.body[7].momentum = 0.3

    def settings() -> list[Any]:
        return [(m.training, getattr(m, "momentum", 0)) for m in model.modules()]

    before = settings()
    optimizer = build("ASAM", "Adam", model, model=model)
    x, y = data(1)[0]
    loss_of(model, x, y).backward()
    with optimizer.perturbed():
        loss_of(model, x, y).backward()
        assert settings() == before
    optimizer.step()
    assert settings() == before
    assert model.body[7].num_batches_tracked == 1
    assert model.body[1].num_batches_tracked == 0
    assert model.calls == 1


def test_the_masks_of_the_first_pass_return() -> None:
    """Seen directly: dropout of a constant shows its mask."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(100, 1, bias=False))
    seen: list[Tensor] = []
    model[1].register_forward_pre_hook(lambda module, args: seen.append(args[0] != 0))
    optimizer = build("SAM", "SGD", model, model=model)
    for _ in range(2):
        model(torch.ones(3, 100)).sum().backward()
    with optimizer.perturbed():
        for _ in range(3):
            model(torch.ones(3, 100)).sum().backward()
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])
    assert not any(torch.equal(seen[4], mask) for mask in seen[:4])  # one call more is a fresh one


@pytest.mark.parametrize("together", [False, True])
def test_recomputation_in_a_backward_is_replayed_too(together: bool) -> None:
    """Activation checkpointing around the model calls its forward again, in the backward."""

    def passes(model: nn.Module) -> None:
        losses = []
        for x in (torch.ones(4, 20), torch.ones(5, 20)):
            losses.append(checkpoint(model, x, use_reentrant=False).square().mean())
            if not together:
                losses.pop().backward()
        if together:
            torch.stack(losses).sum().backward()

    runs = []
    for sharp in (False, True):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(20, 20), nn.Dropout(0.5), nn.Linear(20, 3))
        optimizer = build("SAM", "SGD", model, rho=0.0, model=model)
        for _ in range(3):
            optimizer.zero_grad()
            passes(model)
            if sharp:
                with optimizer.perturbed():
                    passes(model)
            optimizer.step()
        runs.append([model.state_dict(), torch.get_rng_state()])
    assert same(*runs)


def test_outputs_of_any_structure() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> dict[str, Any]:
            y = nn.functional.dropout(self.layer(x))
            return {"features": [x.detach(), y.detach()], "loss": y.square().mean(), "name": "a"}

    runs = []
    for sharp in (False, True):
        torch.manual_seed(4)
        model = Pair()
        optimizer = build("SAM", "SGD", model, rho=0.0, model=model)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 4))["loss"].backward()
            if sharp:
                with optimizer.perturbed():
                    model(torch.ones(2, 4))["loss"].backward()
            optimizer.step()
        runs.append([model.state_dict(), torch.get_rng_state()])
    assert same(*runs)


def test_the_model_is_free_when_the_optimizer_is_gone() -> None:
    model = Net()
    hooks = len(model._forward_pre_hooks), len(model._forward_hooks)
    optimizer = build("SAM", "SGD", model, model=model)
    assert len(model._forward_pre_hooks) == hooks[0] + 1
    del optimizer
    assert (len(model._forward_pre_hooks), len(model._forward_hooks)) == hooks


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_copy_of_the_model_is_not_watched(clone: Any) -> None:
    model = Net()
    optimizer = build("SAM", "SGD", model, model=model)
    twin = clone(model)
    x, y = data(1)[0]
    loss_of(twin, x, y).backward()
    loss_of(model, x, y).backward()
    assert len(optimizer._replay._used) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_group_with_rho_zero_is_like_no_perturbation(variant: str) -> None:
    torch.manual_seed(0)
    model = Net()
    twin = copy.deepcopy(model)
    base = torch.optim.SGD([{"params": list(twin.named_parameters()), "sam_rho": 0.0}], lr=0.05)
    optimizer = VARIANTS[variant](base, model=twin)
    wrapped = run(twin, optimizer, zero_grad_first, True)
    bare = run(model, torch.optim.SGD(model.named_parameters(), lr=0.05), zero_grad_first, False)
    assert same(bare, wrapped)
