"""A closure means what it means to torch's own optimizers, and is never half heard."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import BASES, PAIRS, VARIANTS, Careless, build, same

Loop = Callable[[Any, nn.Module], None]

SOURCE = torch.Generator().manual_seed(0)
INPUTS, TARGETS = torch.randn(16, 4, generator=SOURCE), torch.randint(3, (16,), generator=SOURCE)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def loss_of(model: nn.Module, part: slice = slice(None)) -> Tensor:
    return nn.functional.cross_entropy(model(INPUTS[part]), TARGETS[part])


def usual(optimizer: Any, model: nn.Module) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(closure)


def cleared_by_the_model(optimizer: Any, model: nn.Module) -> None:
    def closure() -> Tensor:
        model.zero_grad(set_to_none=False)
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(closure)


def cleared_by_hand(optimizer: Any, model: nn.Module) -> None:
    def closure() -> Tensor:
        for p in model.parameters():
            p.grad = None
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(closure)


def cleared_after_the_step(optimizer: Any, model: nn.Module) -> None:
    def closure() -> Tensor:
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(closure)
    optimizer.zero_grad()


def filled_with_zeros_after_the_step(optimizer: Any, model: nn.Module) -> None:
    def closure() -> Tensor:
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(closure)
    optimizer.zero_grad(set_to_none=False)


def returns_nothing(optimizer: Any, model: nn.Module) -> None:
    def closure() -> None:
        optimizer.zero_grad()
        loss_of(model).backward()

    assert optimizer.step(closure) is None


def returns_a_number(optimizer: Any, model: nn.Module) -> None:
    def closure() -> float:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss.item()

    optimizer.step(closure)


def accumulates_inside(optimizer: Any, model: nn.Module) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        for part in (slice(0, 8), slice(8, 16)):
            (loss_of(model, part) / 2).backward()
        return loss_of(model)

    optimizer.step(closure)


TWO_PASSES = [
    usual,
    cleared_by_the_model,
    cleared_by_hand,
    cleared_after_the_step,
    filled_with_zeros_after_the_step,
    returns_nothing,
    returns_a_number,
    accumulates_inside,
]


def run(loop: Loop, optimizer_of: Any) -> dict[str, Any]:
    model = network()
    optimizer = optimizer_of(model)
    for _ in range(4):
        loop(optimizer, model)
    return model.state_dict()


@pytest.mark.parametrize("loop", TWO_PASSES, ids=lambda loop: loop.__name__)
@pytest.mark.parametrize(("variant", "base"), PAIRS)
def test_with_rho_zero_every_closure_is_the_bases(variant: str, base: str, loop: Loop) -> None:
    bare = run(loop, lambda model: BASES[base](model.named_parameters()))
    assert same(bare, run(loop, lambda model: build(variant, base, model, rho=0.0)))


@pytest.mark.parametrize("loop", TWO_PASSES, ids=lambda loop: loop.__name__)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_closure_takes_the_step_of_the_block(variant: str, loop: Loop) -> None:
    def block(optimizer: Any, model: nn.Module) -> None:
        optimizer.zero_grad()
        loss_of(model).backward()
        with optimizer.perturbed():
            loss_of(model).backward()
        optimizer.step()

    def double(model: nn.Module) -> Any:
        return build(variant, "SGD", model.double())

    inputs = INPUTS.double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "INPUTS", inputs)
        found, expected = run(loop, double), run(block, double)
    for name, value in expected.items():  # parts are summed in another order
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14)


def steps_with_what_is_there(optimizer: Any, model: nn.Module, answer: Any) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()
    assert optimizer.step(lambda: answer) is answer


@pytest.mark.filterwarnings("ignore:.*has never been in perturbed")
@pytest.mark.parametrize("answer", [None, torch.tensor(1.0), 0.5])
@pytest.mark.parametrize(("variant", "base"), PAIRS)
def test_a_closure_that_makes_no_gradient_steps_with_those_that_are_there(
    variant: str, base: str, answer: Any
) -> None:
    """As frameworks call it that run the passes themselves."""
    models = network(), network()
    for model, optimizer in zip(
        models,
        (BASES[base](models[0].named_parameters()), build(variant, base, models[1])),
        strict=True,
    ):
        for _ in range(3):
            steps_with_what_is_there(optimizer, model, answer)
    assert same(models[0].state_dict(), models[1].state_dict())
    assert not same(models[0].state_dict(), network().state_dict())


@pytest.mark.parametrize("variant", VARIANTS)
def test_after_a_block_such_a_closure_steps_with_the_blocks_gradients(variant: str) -> None:
    models = network(), network()
    for i, model in enumerate(models):
        optimizer = build(variant, "SGD", model)
        loss = loss_of(model)
        loss.backward()
        with optimizer.perturbed():
            loss_of(model).backward()
        optimizer.step(*[lambda kept=loss: kept][:i])
    assert same(models[0].state_dict(), models[1].state_dict())


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_closure_that_only_clears(variant: str) -> None:
    """As Lightning's, when ``training_step`` skips a batch."""
    model = network()
    optimizer = build(variant, "SGD", model)
    loss_of(model).backward()
    assert optimizer.step(optimizer.zero_grad) is None
    assert same(model.state_dict(), network().state_dict())


def adds_to_a_part(optimizer: Any, model: nn.Module) -> None:
    optimizer.zero_grad()
    (loss_of(model, slice(0, 8)) / 2).backward()

    def closure() -> Tensor:
        loss = loss_of(model, slice(8, 16)) / 2
        loss.backward()
        return loss

    optimizer.step(closure)


def adds_for_some(optimizer: Any, model: nn.Module) -> None:
    """One part of the network is cleared, another is not."""
    optimizer.zero_grad()
    loss_of(model).backward()

    def closure() -> Tensor:
        model[0].zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(closure)


def never_clears(optimizer: Any, model: nn.Module) -> None:
    def closure() -> Tensor:
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(closure)
    optimizer.step(closure)


def adds_by_hand(optimizer: Any, model: nn.Module) -> None:
    """Without autograd writing ``.grad``, as sharded models do."""
    optimizer.zero_grad()
    for p in model.parameters():
        p.grad = torch.ones_like(p)

    def closure() -> Tensor:
        for p in model.parameters():
            p.grad += 1.0
        return torch.zeros(())

    optimizer.step(closure)


ADDING = [adds_to_a_part, adds_for_some, never_clears, adds_by_hand]


@pytest.mark.parametrize("loop", ADDING, ids=lambda loop: loop.__name__)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_closure_that_adds_to_earlier_gradients_is_refused(variant: str, loop: Loop) -> None:
    """The gradients stay, and so do the weights of the step that was refused."""
    model = network()
    optimizer = build(variant, "SGD", model)
    with pytest.raises(RuntimeError, match=r"added to gradients .*micro_batches\(\)"):
        loop(optimizer, model)
    assert all(p.grad is not None for p in model.parameters())
    if loop is not never_clears:
        assert same(model.state_dict(), network().state_dict())
    usual(optimizer, model)


@pytest.mark.parametrize("loop", ADDING, ids=lambda loop: loop.__name__)
def test_where_nothing_climbs_adding_is_exact(loop: Loop) -> None:
    bare = run(loop, lambda model: BASES["SGD"](model.named_parameters()))
    assert same(bare, run(loop, lambda model: build("SAM", "SGD", model, rho=0.0)))


def test_a_wrapper_that_believes_its_closure_is_noticed() -> None:
    class Believing(Careless):
        def step(self, closure: Any = None) -> Any:
            if closure is not None:
                closure()
                with self.perturbed():
                    closure()
            return self.base.step()

    def believing(model: nn.Module) -> Any:
        return Believing(BASES["SGD"](model.named_parameters()), rho=0.0)

    bare = run(adds_to_a_part, lambda model: BASES["SGD"](model.named_parameters()))
    assert not same(bare, run(adds_to_a_part, believing))


def test_a_group_that_does_not_climb_still_learns_from_the_second_pass() -> None:
    """One pass is enough only where no group climbs."""
    model = network()
    groups = [
        {"params": list(model[0].named_parameters()), "sam_rho": 0.0},
        {"params": list(model[2].named_parameters())},
    ]
    optimizer = VARIANTS["SAM"](torch.optim.SGD(groups, lr=0.1))
    calls = []

    def closure() -> Tensor:
        calls.append(optimizer.in_second_pass)
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert calls == [False, True]
    optimizer.param_groups[1]["sam_rho"] = 0.0
    optimizer.step(closure)
    assert calls == [False, True, False]


def test_a_deepcopy_is_not_watched() -> None:
    """Nor does a hook of ours go along with the weights."""
    model = network()
    optimizer = build("SAM", "SGD", model)
    usual(optimizer, model)
    twin = copy.deepcopy(model)
    assert not any(p._backward_hooks for p in twin.parameters())
    usual(copy.deepcopy(optimizer), model)
