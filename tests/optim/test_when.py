"""When a step perturbs, which parameters do, and several bases in one ball."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from cases import BASES, PAIRS, VARIANTS, build, same
from flatmin import ASAM, SAM
from flatmin.optim import Every, perturb_only


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)
    return nn.Sequential(*layers).double()


def loss_of(model: nn.Module) -> Tensor:
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)
    return (model(x) - 1.0).square().mean()


def block(optimizer: Any, model: nn.Module) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()
    with optimizer.perturbed():
        loss_of(model).backward()
    optimizer.step()


def asking(optimizer: Any, model: nn.Module) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()
    if optimizer.due:
        with optimizer.perturbed():
            loss_of(model).backward()
    optimizer.step()


def closure(optimizer: Any, model: nn.Module) -> None:
    def evaluate() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(evaluate)


LOOPS = [block, asking, closure]


def by_hand(variant: str, base: str, model: nn.Module, k: int, steps: int) -> None:
    """Two optimizers' worth of steps on one base: every k-th is SAM's."""
    optimizer = build(variant, base, model)
    for i in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        if i % k == 0:
            with optimizer.perturbed():
                loss_of(model).backward()
        optimizer.step()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("variant", "base"), PAIRS)
def test_every_third_step(variant: str, base: str, loop: Any) -> None:
    """To the last bit, whether the loop asks or not."""
    model, twin = network(), network()
    optimizer = build(variant, base, model, when=Every(3))
    dues = []
    for _ in range(7):
        dues.append(optimizer.due)
        loop(optimizer, model)
    assert dues == [True, False, False] * 2 + [True]
    by_hand(variant, base, twin, 3, 7)
    assert same(model.state_dict(), twin.state_dict())
    plain = network()
    by_hand(variant, base, plain, 1, 7)
    assert not same(model.state_dict(), plain.state_dict())


def test_a_step_that_is_not_due_takes_one_pass_with_a_closure() -> None:
    model = network()
    optimizer = build("SAM", "SGD", model, when=Every(2))
    seen: list[bool] = []
    for _ in range(4):

        def evaluate() -> Tensor:
            optimizer.zero_grad()
            seen.append(optimizer.in_second_pass)
            loss = loss_of(model)
            loss.backward()
            return loss

        optimizer.step(evaluate)
    assert seen == [False, True, False, False, True, False]


def test_in_a_step_that_is_not_due_nothing_moves() -> None:
    model = network()
    optimizer = build("SAM", "SGD", model, when=Every(2))
    block(optimizer, model)
    before = copy.deepcopy(model.state_dict())
    optimizer.zero_grad()
    loss_of(model).backward()
    with optimizer.perturbed():
        assert same(before, model.state_dict())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_count_is_resumed(variant: str) -> None:
    model, twin = network(), network()
    optimizer = build(variant, "Adam", model, when=Every(3))
    for _ in range(4):
        closure(optimizer, model)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    record = torch.load(file, weights_only=True)
    other = build(variant, "Adam", twin, when=Every(3))
    twin.load_state_dict(record["model"])
    other.load_state_dict(record["optimizer"])
    for _ in range(4):
        assert optimizer.due == other.due
        closure(optimizer, model)
        closure(other, twin)
    assert same(model.state_dict(), twin.state_dict())
    bare = torch.optim.Adam(network().parameters())
    bare.load_state_dict(record["optimizer"])


def test_a_skipped_step_is_not_counted() -> None:
    model = network()
    optimizer = build("SAM", "SGD", model, when=Every(2))
    loss_of(model).backward()
    with optimizer.perturbed():
        (loss_of(model) * torch.nan).backward()
    with pytest.warns(RuntimeWarning, match="skipped"):
        optimizer.step()
    assert optimizer.due


def test_due_is_false_where_no_group_climbs() -> None:
    optimizer = build("SAM", "SGD", network(), rho=0.0)
    assert not optimizer.due
    optimizer.param_groups[0]["sam_rho"] = 0.1
    assert optimizer.due


@pytest.mark.parametrize(
    ("k", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_a_bad_interval(k: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="k must be"):
        Every(k)


# Which


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_kind_of_module_alone(variant: str) -> None:
    """The others train, and are outside the ball and its norm."""
    model = network()
    optimizer = VARIANTS[variant](BASES["SGD"](perturb_only(model, nn.LayerNorm)))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss_of(model).backward()
    alone = VARIANTS[variant](BASES["SGD"](list(model[1].named_parameters())))
    grads = {name: p.grad for name, p in model.named_parameters()}
    with optimizer.perturbed():
        found = {name: p.detach() - before[name] for name, p in model.named_parameters()}
        loss_of(model).backward()
    assert {name for name, shift in found.items() if shift.any()} == {"1.weight", "1.bias"}
    optimizer.step()
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(before[name])
            p.grad = grads[name]
    with alone.perturbed():
        for name in ("weight", "bias"):
            shift = getattr(model[1], name).detach() - before[f"1.{name}"]
            assert torch.equal(shift, found[f"1.{name}"])


def test_a_kind_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"no parameter that trains .* BatchNorm2d"):
        perturb_only(network(), nn.BatchNorm2d)


# Several bases


def matrices_and_rest(model: nn.Module) -> list[torch.optim.Optimizer]:
    named = list(model.named_parameters())
    return [
        torch.optim.SGD([(n, p) for n, p in named if p.ndim == 2], lr=0.1, momentum=0.9),
        torch.optim.Adam([(n, p) for n, p in named if p.ndim != 2], lr=0.02),
    ]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("variant", [v for v in VARIANTS if v not in ("FriendlySAM", "WSAM")])
def test_several_bases_climb_in_one_ball(variant: str, loop: Any) -> None:
    """The shift is that of one optimizer over all; each base takes its own step with the result.

    Two variants do more in their step than their bases do, and cannot be taken apart so.
    """
    model, twin = network(), network()
    optimizer = VARIANTS[variant](matrices_and_rest(model))
    bases = matrices_and_rest(twin)
    climber = VARIANTS[variant](torch.optim.SGD(twin.named_parameters(), lr=0.0))
    for _ in range(5):
        loop(optimizer, model)
        climber.zero_grad()
        loss_of(twin).backward()
        with climber.perturbed():
            loss_of(twin).backward()
        for base in bases:
            base.step()
    for name, p in model.state_dict().items():
        torch.testing.assert_close(p, twin.state_dict()[name], rtol=1e-12, atol=1e-14)


def test_two_wrappers_are_two_balls_and_say_so_when_nested() -> None:
    model, twin = network(), network()
    first, second = (SAM(base, rho=0.5) for base in matrices_and_rest(model))
    one = SAM(matrices_and_rest(twin), rho=0.5)
    for net in (model, twin):
        loss_of(net).backward()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            with first.perturbed(), second.perturbed():
                moved = copy.deepcopy(model.state_dict())
                loss_of(model).backward()
            first.zero_grad()
            second.zero_grad()
            loss_of(model).backward()
    assert [str(w.message)[:40] for w in caught] == ["perturbed() was entered inside that of a"]
    with one.perturbed():
        assert not same(moved, twin.state_dict())


def test_schedulers_reach_all_and_each() -> None:
    model = network()
    bases = matrices_and_rest(model)
    optimizer = SAM(bases, rho=0.1)
    both = lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    block(optimizer, model)
    both.step()
    assert [base.param_groups[0]["lr"] for base in bases] == [0.05, 0.01]
    single = lr_scheduler.StepLR(bases[1], 1, gamma=0.1)
    block(optimizer, model)
    single.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.001])


@pytest.mark.parametrize("bad", [False, True])
def test_a_scaler_with_several(bad: bool) -> None:
    model = network().float()
    optimizer = SAM(matrices_and_rest(model), rho=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    x = torch.linspace(-1, 1, 12).view(4, 3)
    before = copy.deepcopy(model.state_dict())
    optimizer.zero_grad()
    scaler.scale(model(x).square().mean()).backward()
    with optimizer.perturbed():
        scaler.scale(model(x).square().mean()).backward()
        if bad:
            model[1].bias.grad[0] = torch.inf
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert same(before, model.state_dict()) is bad
    assert scaler.get_scale() == (512.0 if bad else 1024.0)


@pytest.mark.parametrize("way", ["file", "deepcopy"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_several_are_resumed(variant: str, way: str) -> None:
    model, twin = network(), network()
    optimizer = VARIANTS[variant](matrices_and_rest(model), when=Every(2))
    for _ in range(3):
        block(optimizer, model)
    if way == "deepcopy":
        twin, other = copy.deepcopy((model, optimizer))
    else:
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        other = VARIANTS[variant](matrices_and_rest(twin), when=Every(2))
        other.load_state_dict(torch.load(file, weights_only=True))
        twin.load_state_dict(model.state_dict())
    for _ in range(3):
        block(optimizer, model)
        block(other, twin)
    assert same(model.state_dict(), twin.state_dict())
    assert same(optimizer.state_dict(), other.state_dict())


def test_hooks_of_each_and_of_all_fire_once() -> None:
    model = network()
    bases = matrices_and_rest(model)
    optimizer = SAM(bases, rho=0.1)
    fired: list[str] = []
    for name, one in {"first": bases[0], "second": bases[1], "all": optimizer}.items():
        one.register_step_post_hook(lambda *_, name=name: fired.append(name))
    block(optimizer, model)
    assert fired == ["first", "second", "all"]


def test_what_several_cannot_be() -> None:
    model = network()
    twice = [torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(2)]
    with pytest.raises(ValueError, match="in two of the optimizers"):
        SAM(twice)
    with pytest.raises(TypeError, match="got list"):
        SAM([])
    with pytest.raises(TypeError, match="got SAM"):
        SAM([SAM(twice[0])])
    with pytest.raises(TypeError, match="LBFGS needs a closure"):
        SAM([torch.optim.LBFGS(model.parameters())])
    optimizer = SAM(matrices_and_rest(model))
    with pytest.raises(TypeError, match=r"call add_param_group\(\) of that one"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(ValueError, match="has 1 groups, and the optimizers 2"):
        optimizer.load_state_dict({"state": {}, "param_groups": [{"params": []}]})


def test_muon_for_matrices_and_adamw_for_the_rest() -> None:
    """The case that users have."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    model = network().float()
    named = list(model.named_parameters())
    muon = torch.optim.Muon([(n, p) for n, p in named if p.ndim == 2], lr=0.02)
    adamw = torch.optim.AdamW([(n, p) for n, p in named if p.ndim != 2], lr=0.01)
    optimizer = ASAM([muon, adamw], rho=0.5)
    x = torch.linspace(-1, 1, 12).view(4, 3)
    losses = []
    for _ in range(20):

        def evaluate() -> Tensor:
            optimizer.zero_grad()
            loss = (model(x) - 1.0).square().mean()
            loss.backward()
            return loss

        losses.append(optimizer.step(evaluate).item())
    assert losses[-1] < 0.5 * losses[0]
