"""Everything that works on a torch optimizer works on the wrapper: schedulers, groups, hooks."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from cases import BASES, OTHERS_SLOWLY, PAIRS, VARIANTS, build, same


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def loss_of(model: nn.Module) -> Tensor:
    x = torch.linspace(-1, 1, 12).view(4, 3).to(next(model.parameters()))
    return (model(x) - 1.0).square().mean()


def step(optimizer: Any, model: nn.Module) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()
    with optimizer.perturbed():
        loss_of(model).backward()
    optimizer.step()


# Schedulers

SCHEDULERS: dict[str, Any] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "Cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 8),
    "WarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "Lambda": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "OneCycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
    "Cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 2, cycle_momentum=False),
    "Plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "Sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.5)], [3]
    ),
    "Chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o), lr_scheduler.MultiStepLR(o, [2, 4])]
    ),
}


# SequentialLR of torch 2.6 calls itself in a way that torch deprecates.
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")
@pytest.mark.parametrize("to_base", [False, True], ids=["on wrapper", "on base"])
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("variant", OTHERS_SLOWLY)
def test_schedulers_act_as_on_the_base(variant: str, name: str, to_base: bool) -> None:
    """And without a warning, since warnings are errors here."""
    model = network()
    optimizer = build(variant, "SGD", model)
    bare = BASES["SGD"](copy.deepcopy(model).named_parameters())
    scheduler = SCHEDULERS[name](optimizer.base if to_base else optimizer)
    expected = SCHEDULERS[name](bare)
    for _ in range(8):
        step(optimizer, model)
        bare.step()
        for one in (scheduler, expected):
            one.step(1.0) if name == "Plateau" else one.step()
        for key in ("lr", "momentum"):
            assert optimizer.param_groups[0][key] == bare.param_groups[0][key]
            assert optimizer.base.param_groups[0][key] == bare.param_groups[0][key]


def test_one_cycle_moves_the_betas_of_adam() -> None:
    model = network()
    optimizer = build("SAM", "Adam", model)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)
    seen = set()
    for _ in range(8):
        step(optimizer, model)
        scheduler.step()
        seen.add(optimizer.param_groups[0]["betas"][0])
    assert len(seen) > 4


def test_an_averaged_model_and_a_scheduler_of_rho() -> None:
    """``sam_rho`` is a setting of the group like any other."""
    model = network()
    optimizer = build("SAM", "SGD", model)
    average = torch.optim.swa_utils.AveragedModel(model)
    swa = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.01)
    lengths = []
    for rho in (0.1, 0.0, 0.3):
        optimizer.param_groups[0]["sam_rho"] = rho
        start = nn.utils.parameters_to_vector(model.parameters()).detach()
        optimizer.zero_grad()
        loss_of(model).backward()
        with optimizer.perturbed():
            here = nn.utils.parameters_to_vector(model.parameters()).detach()
            lengths.append((here - start).norm().item())
            loss_of(model).backward()
        optimizer.step()
        average.update_parameters(model)
        swa.step()
    assert lengths == pytest.approx([0.1, 0.0, 0.3], rel=1e-5)


# Groups


def two_groups(variant: str, base: str = "SGD", **second: Any) -> tuple[nn.Module, Any]:
    model = network().double()
    groups = [
        {"params": list(model[0].named_parameters())},
        {"params": list(model[2].named_parameters()), **second},
    ]
    return model, VARIANTS[variant](BASES[base](groups))


def shifts(model: nn.Module, optimizer: Any) -> dict[str, Tensor]:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.zero_grad()
    loss_of(model).backward()
    with optimizer.perturbed():
        return {name: p.detach() - before[name] for name, p in model.named_parameters()}


def test_groups_with_their_own_rho_form_one_ball() -> None:
    """The shift fills max ⟨g, ε⟩ under ‖(ε₁/ρ₁, ε₂/ρ₂)‖₂ ≤ 1: by hand, ρᵢ² gᵢ / ‖(ρ₁g₁, ρ₂g₂)‖."""
    model, optimizer = two_groups("SAM", sam_rho=0.2)
    found = shifts(model, optimizer)
    loss_of(model).backward()
    rho = {name: 0.05 if name.startswith("0") else 0.2 for name in found}
    grads = {name: p.grad for name, p in model.named_parameters()}
    norm = torch.stack([(rho[n] * g).norm() for n, g in grads.items()]).norm()
    for name, g in grads.items():
        torch.testing.assert_close(found[name], rho[name] ** 2 * g / norm, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_group_with_rho_zero_is_outside_the_ball_and_outside_the_norm(variant: str) -> None:
    """So the others move exactly as if they were alone."""
    model, optimizer = two_groups(variant, sam_rho=0.0)
    found = shifts(model, optimizer)
    alone = VARIANTS[variant](BASES["SGD"](list(model[0].named_parameters())))
    expected = shifts(model, alone)
    assert not found["2.weight"].any() and not found["2.bias"].any()
    assert found["0.weight"].any()
    assert same(expected, found)
    full, whole = two_groups(variant)
    full.load_state_dict(model.state_dict())
    assert not same(shifts(full, whole)["0.weight"], found["0.weight"])


def test_a_group_with_its_own_eta() -> None:
    model, optimizer = two_groups("ASAM", sam_eta=100.0)
    assert [group["sam_eta"] for group in optimizer.param_groups] == [0.01, 100.0]
    with torch.no_grad():
        model[2].weight.zero_()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    with optimizer.perturbed():
        assert model[2].weight.abs().min() > 0.01


@pytest.mark.parametrize(("variant", "base"), PAIRS)
def test_a_group_added_later(variant: str, base: str) -> None:
    model = network()
    optimizer = VARIANTS[variant](BASES[base](list(model[0].named_parameters())))
    step(optimizer, model)
    optimizer.add_param_group({"params": list(model[2].named_parameters()), "lr": 0.5})
    assert optimizer.param_groups[1]["sam_rho"] == optimizer.param_groups[0]["sam_rho"]
    before = model[2].weight.clone()
    step(optimizer, model)
    assert not torch.equal(before, model[2].weight)
    assert optimizer.param_groups is optimizer.base.param_groups


@pytest.mark.parametrize(("variant", "base"), PAIRS)
def test_no_setting_of_the_base_is_touched(variant: str, base: str) -> None:
    """Adadelta has a rho and RMSprop an alpha; ours have names of their own."""
    model = network()
    bare = BASES[base](model.named_parameters())
    expected = {key: value for key, value in bare.param_groups[0].items() if key != "params"}
    optimizer = VARIANTS[variant](bare, rho=0.123)
    group = optimizer.param_groups[0]
    assert {key: group[key] for key in expected} == expected
    assert all(key.startswith("sam_") for key in set(group) - set(expected) - {"params"})
    assert group["sam_rho"] == 0.123
    assert optimizer.defaults is bare.defaults


# Hooks


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_step_hooks_fire_once(variant: str, closure: bool) -> None:
    """Those of the base, those put on the wrapper, and the global ones."""
    model = network()
    optimizer = build(variant, "SGD", model)
    seen: list[str] = []

    def note(name: str) -> Any:
        return lambda *_: seen.append(name)

    optimizer.base.register_step_pre_hook(note("base pre"))
    optimizer.register_step_pre_hook(note("wrapper pre"))
    optimizer.base.register_step_post_hook(note("base post"))
    removable = optimizer.register_step_post_hook(note("wrapper post"))
    globals_ = [
        register_optimizer_step_pre_hook(note("global pre")),
        register_optimizer_step_post_hook(note("global post")),
    ]
    try:
        if closure:

            def evaluate() -> Tensor:
                optimizer.zero_grad()
                loss = loss_of(model)
                loss.backward()
                return loss

            optimizer.step(evaluate)
        else:
            step(optimizer, model)
        once = ["base post", "base pre", "global post", "global pre"]
        assert sorted(seen) == sorted([*once, "wrapper post", "wrapper pre"])
        removable.remove()
        seen.clear()
        step(optimizer, model)
        assert sorted(seen) == sorted([*once, "wrapper pre"])
    finally:
        for hook in globals_:
            hook.remove()


def test_hooks_see_the_weights_at_their_own_place() -> None:
    """A hook of the base that reads weights finds them unperturbed."""
    model = network()
    optimizer = build("SAM", "SGD", model)
    start = copy.deepcopy(model.state_dict())
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(same(start, model.state_dict())))
    step(optimizer, model)
    assert seen == [True]


# Directions


@pytest.mark.parametrize("variant", VARIANTS)
def test_maximize_climbs_the_right_way(variant: str) -> None:
    """Maximizing −L is minimizing L, in every step and bit for bit."""
    torch.manual_seed(0)
    model = network()
    twin = copy.deepcopy(model)
    down = VARIANTS[variant](torch.optim.SGD(model.named_parameters(), lr=0.1))
    up = VARIANTS[variant](torch.optim.SGD(twin.named_parameters(), lr=0.1, maximize=True))
    for _ in range(5):
        step(down, model)
        up.zero_grad()
        (-loss_of(twin)).backward()
        with up.perturbed():
            (-loss_of(twin)).backward()
        up.step()
    assert same(model.state_dict(), twin.state_dict())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loss_rises_on_climbing(variant: str) -> None:
    model = network()
    optimizer = build(variant, "SGD", model)
    for sign, maximize in ((1.0, False), (-1.0, True)):
        optimizer.param_groups[0]["maximize"] = maximize
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        with optimizer.perturbed():
            assert sign * (loss_of(model) - loss).item() > 0


# The rest of the protocol


def test_it_is_an_optimizer() -> None:
    model = network()
    optimizer = build("ASAM", "Adam", model)
    assert isinstance(optimizer, Optimizer)
    assert "lr: 0.01" in repr(optimizer) and "sam_rho: 0.5" in repr(optimizer)
    assert optimizer.state is optimizer.base.state


def test_step_without_a_perturbation_is_the_bases_own() -> None:
    torch.manual_seed(0)
    model = network()
    twin = copy.deepcopy(model)
    optimizer, bare = build("SAM", "Adam", model), BASES["Adam"](twin.named_parameters())
    with pytest.warns(RuntimeWarning, match=r"has never been in perturbed\(\)") as caught:
        for _ in range(3):
            for one, net in ((optimizer, model), (bare, twin)):
                one.zero_grad()
                loss_of(net).backward()
                one.step()
    assert len(caught) == 1 and caught[0].filename == __file__
    assert same(model.state_dict(), twin.state_dict())


def test_the_closure_runs_twice_and_the_first_loss_is_returned() -> None:
    model = network()
    optimizer = build("SAM", "SGD", model)
    losses = []

    @torch.no_grad()
    def outside() -> Any:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            losses.append(loss)
            return loss

        return optimizer.step(closure)

    returned = outside()
    assert returned is losses[0] and len(losses) == 2
    assert losses[1] > losses[0]


def test_zero_grad_as_asked() -> None:
    model = network()
    optimizer = build("SAM", "SGD", model)
    loss_of(model).backward()
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_nothing_keeps_an_optimizer_alive() -> None:
    model = network()
    optimizer = build("SAM", "SGD", model, model=model)
    step(optimizer, model)
    gone = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert gone() is None
    loss_of(model).backward()
