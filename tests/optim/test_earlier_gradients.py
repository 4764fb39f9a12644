"""Gradients of before: a block loses none without a word, and parts may come one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import IN_PARTS, VARIANTS, Careless, build, pairs, same

SOURCE = torch.Generator().manual_seed(0)
INPUTS = torch.randn(12, 4, generator=SOURCE, dtype=torch.float64)
TARGETS = torch.randint(3, (12,), generator=SOURCE)
PARTS = [slice(0, 4), slice(4, 8), slice(8, 12)]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def backward(model: nn.Module, part: slice = slice(None), share: float = 1.0) -> None:
    loss = nn.functional.cross_entropy(model(INPUTS[part]), TARGETS[part])
    (loss * share).backward()


def grads(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters()]


def block_by_block(optimizer: Any, model: nn.Module) -> None:
    for part in PARTS:
        backward(model, part, 1 / 3)
        with optimizer.perturbed():
            backward(model, part, 1 / 3)


@pytest.mark.parametrize("rho", [0.0, 0.05])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_second_block_before_the_step_is_refused(variant: str, rho: float) -> None:
    model = network()
    optimizer = build(variant, "SGD", model, rho=rho)
    with pytest.raises(RuntimeError, match=r"were added to before step\(\).*micro_batches\(\)"):
        block_by_block(optimizer, model)
    assert same(model.state_dict(), network().state_dict())
    optimizer.zero_grad()
    backward(model)
    with optimizer.perturbed():
        backward(model)
    optimizer.step()


class Dropping(Careless):
    """Takes what it finds for the first gradient."""

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        self.base.zero_grad()
        yield


def test_a_wrapper_that_drops_them_is_noticed() -> None:
    model = network()
    block_by_block(Dropping(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.0), model)
    found, whole = grads(model), network()
    backward(whole)
    assert not torch.allclose(found[0], grads(whole)[0])


def by_the_model(model: nn.Module, optimizer: Any) -> None:
    model.zero_grad()


def by_the_optimizer(model: nn.Module, optimizer: Any) -> None:
    optimizer.zero_grad()


def with_zeros(model: nn.Module, optimizer: Any) -> None:
    model.zero_grad(set_to_none=False)


def in_place(model: nn.Module, optimizer: Any) -> None:
    for p in model.parameters():
        p.grad.data.zero_()


@pytest.mark.parametrize("clear", [by_the_model, by_the_optimizer, with_zeros, in_place])
def test_a_block_whose_gradients_were_cleared_is_none(clear: Callable[..., None]) -> None:
    """As after a step that ``GradScaler`` has skipped, however they were cleared."""
    model = network()
    optimizer = build("SAM", "SGD", model)
    for _ in range(3):
        backward(model)
        with optimizer.perturbed():
            backward(model)
        clear(model, optimizer)


def test_a_look_at_the_perturbed_point_is_no_part_of_the_step() -> None:
    model = network()
    optimizer = build("SAM", "SGD", model)
    backward(model)
    with optimizer.perturbed(), torch.no_grad():
        model(INPUTS)
    backward(model)
    with optimizer.perturbed():
        backward(model)
    optimizer.step()


def test_gradients_that_come_after_the_block_are_stepped_with() -> None:
    """Of a penalty that is not to be perturbed, say."""
    model, twin = network(), network()
    for net, penalty in ((model, True), (twin, False)):
        optimizer = build("SAM", "SGD", net)
        backward(net)
        with optimizer.perturbed():
            backward(net)
        if penalty:
            sum(p.square().sum() for p in net.parameters()).backward()
        optimizer.step()
    assert not same(model.state_dict(), twin.state_dict())


def test_the_gradients_of_the_last_step_are_told_of_once() -> None:
    model = network()
    optimizer = build("SAM", "SGD", model)
    with pytest.warns(RuntimeWarning, match=r"of the last step .* call zero_grad\(\)") as caught:
        for _ in range(3):
            backward(model)
            with optimizer.perturbed():
                backward(model)
            optimizer.step()
    assert len(caught) == 1


def test_a_first_pass_that_was_cleared_is_told_of() -> None:
    model = network()
    optimizer = build("SAM", "SGD", model)
    backward(model)
    optimizer.zero_grad()
    with (
        pytest.warns(RuntimeWarning, match="found no gradient to climb along"),
        optimizer.perturbed(),
    ):
        backward(model)


def test_a_body_without_gradients_skips_the_step_with_a_warning() -> None:
    model = network()
    optimizer = build("SAM", "Adam", model)
    backward(model)
    with optimizer.perturbed(), torch.no_grad():
        model(INPUTS)
    with pytest.warns(RuntimeWarning, match="skipped a step: the body .* made no gradient"):
        optimizer.step()
    assert same(model.state_dict(), network().state_dict()) and not optimizer.state


# Part by part


def one_by_one(optimizer: Any, model: nn.Module) -> None:
    """As a framework does that calls a function for each part."""
    for part in PARTS:
        with optimizer.micro_batches():
            backward(model, part, 1 / 3)
            with optimizer.perturbed():
                backward(model, part, 1 / 3)


def all_in_one(optimizer: Any, model: nn.Module) -> None:
    with optimizer.micro_batches():
        block_by_block(optimizer, model)


@pytest.mark.parametrize(("variant", "base"), pairs(IN_PARTS))
def test_parts_one_by_one_are_the_parts_in_one_block(variant: str, base: str) -> None:
    models = network(), network()
    for parts, model in zip((one_by_one, all_in_one), models, strict=True):
        optimizer = build(variant, base, model)
        for _ in range(3):
            optimizer.zero_grad()
            parts(optimizer, model)
            optimizer.step()
    assert same(models[0].state_dict(), models[1].state_dict())


@pytest.mark.parametrize("parts", [one_by_one, all_in_one])
def test_with_rho_zero_parts_are_plain_accumulation(parts: Any) -> None:
    model, twin = network(), network()
    parts(build("SAM", "SGD", model, rho=0.0), model)
    for part in PARTS:
        backward(twin, part, 1 / 3)
    assert same(grads(model), grads(twin))


def test_gradients_of_before_are_part_of_the_sum() -> None:
    model, twin = network(), network()
    optimizer = build("SAM", "SGD", model)
    backward(model)
    all_in_one(optimizer, model)
    all_in_one(build("SAM", "SGD", twin), twin)
    backward(twin)
    for got, want in zip(grads(model), grads(twin), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("after", [0, 1])
def test_clearing_inside_clears_what_is_not_a_complete_part(after: int) -> None:
    """Before the first part that is what was there before; later it is nothing but habit."""
    model, twin = network(), network()
    optimizer = build("SAM", "SGD", model)
    if not after:
        backward(model)  # stale
    with optimizer.micro_batches():
        for k, part in enumerate(PARTS):
            if k == 0 or after:
                optimizer.zero_grad()
            backward(model, part, 1 / 3)
            with optimizer.perturbed():
                backward(model, part, 1 / 3)
    all_in_one(build("SAM", "SGD", twin), twin)
    assert same(grads(model), grads(twin))


def test_an_exception_in_a_part_leaves_the_earlier_ones() -> None:
    model, twin = network(), network()
    optimizer = build("SAM", "SGD", model)
    other = build("SAM", "SGD", twin)
    for k, part in enumerate(PARTS):
        trouble = pytest.raises(KeyError) if k == 2 else nullcontext()
        with trouble, optimizer.micro_batches():
            backward(model, part)
            with optimizer.perturbed():
                backward(model, part)
                if k == 2:
                    raise KeyError
        if k < 2:
            with other.micro_batches():
                backward(twin, part)
                with other.perturbed():
                    backward(twin, part)
    assert same(grads(model), grads(twin))


@pytest.mark.parametrize("bad_first", [True, False])
def test_a_part_that_overflows_is_not_forgotten_for_one_that_raises(bad_first: bool) -> None:
    x = nn.Parameter(torch.ones(2))
    optimizer = build("SAM", "SGD", nn.ParameterDict({"x": x}))
    with optimizer.micro_batches():
        for k in range(3):
            try:
                x.square().sum().backward()
                with optimizer.perturbed():
                    bad = k == (0 if bad_first else 2)
                    (x.square().sum() * (torch.nan if bad else 1.0)).backward()
                    if k == 1:
                        raise MemoryError
            except MemoryError:
                continue
    with pytest.warns(RuntimeWarning, match="skipped a step"):
        optimizer.step()
    assert x.tolist() == [1.0, 1.0]


def test_one_by_one_an_overflow_skips_the_step_and_not_the_next() -> None:
    model = network()
    optimizer = build("SAM", "SGD", model)
    for bad in (True, False):
        model.zero_grad()  # of which the optimizer is not told
        for k, part in enumerate(PARTS):
            with optimizer.micro_batches():
                backward(model, part)
                if bad and k == 0:
                    model[0].weight.grad[0, 0] = torch.inf
                with optimizer.perturbed():
                    backward(model, part)
        if bad:
            with pytest.warns(RuntimeWarning, match="at the weights was not finite"):
                optimizer.step()
            assert same(model.state_dict(), network().state_dict())
    optimizer.step()
    assert not same(model.state_dict(), network().state_dict())


def test_a_step_inside_micro_batches_is_refused() -> None:
    model = network()
    optimizer = build("SAM", "SGD", model)
    inside = pytest.raises(RuntimeError, match=r"step\(\) was called inside micro_batches\(\)")
    with inside, optimizer.micro_batches():
        backward(model)
        with optimizer.perturbed():
            backward(model)
        optimizer.step()
    assert same(model.state_dict(), network().state_dict())
