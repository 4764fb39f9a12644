"""With lr = 0 nothing that happens in a step changes a bit of a weight, or where it lies."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cases import OTHERS_SLOWLY, PAIRS, VARIANTS, Careless, Zoo, assert_same_bits, bits, build
from slowly import slow_but

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

Trouble = Callable[[Any, Zoo], None]
TROUBLES: dict[str, Trouble] = {}


class Trip(Exception):
    """What goes wrong in a user's code."""


def trouble(function: Trouble) -> Trouble:
    TROUBLES[function.__name__] = function
    return function


def backward(zoo: Zoo, bad: float | None = None, branch: bool = True) -> None:
    zoo(branch).backward()
    if bad is not None:
        zoo.image.grad[1, 2, 1, 0] = bad


def loop(optimizer: Any, zoo: Zoo, first: dict[str, Any], second: dict[str, Any]) -> None:
    optimizer.zero_grad()
    backward(zoo, **first)
    with optimizer.perturbed():
        backward(zoo, **second)
    optimizer.step()


@trouble
def ordinary(optimizer: Any, zoo: Zoo) -> None:
    loop(optimizer, zoo, {}, {})


@trouble
def nan_in_first_pass(optimizer: Any, zoo: Zoo) -> None:
    loop(optimizer, zoo, {"bad": math.nan}, {})


@trouble
def inf_in_first_pass(optimizer: Any, zoo: Zoo) -> None:
    loop(optimizer, zoo, {"bad": -math.inf}, {})


@trouble
def nan_in_second_pass(optimizer: Any, zoo: Zoo) -> None:
    loop(optimizer, zoo, {}, {"bad": math.nan})


@trouble
def inf_in_second_pass(optimizer: Any, zoo: Zoo) -> None:
    loop(optimizer, zoo, {}, {"bad": math.inf})


@trouble
def nan_in_both_passes(optimizer: Any, zoo: Zoo) -> None:
    loop(optimizer, zoo, {"bad": math.nan}, {"bad": math.nan})


@trouble
def branch_used_in_first_pass_only(optimizer: Any, zoo: Zoo) -> None:
    loop(optimizer, zoo, {}, {"branch": False})


@trouble
def branch_used_in_second_pass_only(optimizer: Any, zoo: Zoo) -> None:
    loop(optimizer, zoo, {"branch": False}, {})


@trouble
def branch_unused(optimizer: Any, zoo: Zoo) -> None:
    loop(optimizer, zoo, {"branch": False}, {"branch": False})


@trouble
def zero_gradients(optimizer: Any, zoo: Zoo) -> None:
    optimizer.zero_grad()
    (0.0 * zoo()).backward()
    with optimizer.perturbed():
        (0.0 * zoo()).backward()
    optimizer.step()


@trouble
def no_gradients(optimizer: Any, zoo: Zoo) -> None:
    optimizer.zero_grad()
    with optimizer.perturbed():
        pass
    optimizer.step()


@trouble
def no_gradients_in_body(optimizer: Any, zoo: Zoo) -> None:
    backward(zoo)
    with optimizer.perturbed():
        pass
    optimizer.step()


def raising(optimizer: Any, zoo: Zoo, error: type[BaseException], after: bool) -> None:
    optimizer.zero_grad()
    backward(zoo)
    with pytest.raises(error), optimizer.perturbed():
        if after:
            backward(zoo)
        raise error
    optimizer.step()


@trouble
def exception_before_second_backward(optimizer: Any, zoo: Zoo) -> None:
    raising(optimizer, zoo, Trip, after=False)


@trouble
def exception_after_second_backward(optimizer: Any, zoo: Zoo) -> None:
    raising(optimizer, zoo, Trip, after=True)


@trouble
def keyboard_interrupt(optimizer: Any, zoo: Zoo) -> None:
    raising(optimizer, zoo, KeyboardInterrupt, after=True)


@trouble
def left_by_return(optimizer: Any, zoo: Zoo) -> None:
    def leave() -> None:
        with optimizer.perturbed():
            backward(zoo)
            return

    backward(zoo)
    leave()


def closure(optimizer: Any, zoo: Zoo, fails_at: int) -> None:
    calls = iter(range(1, 3))

    def evaluate() -> torch.Tensor:
        optimizer.zero_grad()
        loss = zoo()
        loss.backward()
        if next(calls) == fails_at:
            raise Trip
        return loss

    if fails_at > 2:
        optimizer.step(evaluate)
    else:
        with pytest.raises(Trip):
            optimizer.step(evaluate)


@trouble
def ordinary_closure(optimizer: Any, zoo: Zoo) -> None:
    closure(optimizer, zoo, fails_at=3)


@trouble
def exception_in_first_call(optimizer: Any, zoo: Zoo) -> None:
    closure(optimizer, zoo, fails_at=1)


@trouble
def exception_in_second_call(optimizer: Any, zoo: Zoo) -> None:
    closure(optimizer, zoo, fails_at=2)


@trouble
def nested_by_mistake(optimizer: Any, zoo: Zoo) -> None:
    backward(zoo)
    with pytest.raises(RuntimeError, match="inside itself"), optimizer.perturbed():
        backward(zoo)
        with optimizer.perturbed():
            pass


@trouble
def step_inside_by_mistake(optimizer: Any, zoo: Zoo) -> None:
    backward(zoo)
    with pytest.raises(RuntimeError, match="inside perturbed"), optimizer.perturbed():
        backward(zoo)
        optimizer.step()


def play(names: list[str], optimizer: Any, zoo: Zoo) -> None:
    """Let troubles happen one after another; after each, every bit is where it was."""
    before, around = bits(zoo), zoo.buffer.clone()
    for name in names:
        optimizer.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            TROUBLES[name](optimizer, zoo)
        assert_same_bits(before, zoo)
        assert torch.equal(zoo.buffer, around), name


@pytest.mark.parametrize("name", TROUBLES)
@pytest.mark.parametrize("variant", OTHERS_SLOWLY)
def test_each_trouble(variant: str, name: str) -> None:
    zoo = Zoo()
    play(["ordinary", name, "ordinary", name], build(variant, "SGD", zoo, lr=0.0), zoo)


@pytest.mark.parametrize("dtype", slow_but(DTYPES, torch.float32), ids=str)
@pytest.mark.parametrize(("variant", "base"), PAIRS)
def test_any_sequence(variant: str, base: str, dtype: torch.dtype) -> None:
    zoo = Zoo(dtype)
    names = random.Random(f"{variant} {base} {dtype}").choices(list(TROUBLES), k=30)
    # In float16 the default eps is zero, and the base divides by it where the gradient is zero.
    coarse = dtype == torch.float16 and base in {"Adam", "AdamW", "RMSprop"}
    options = {"eps": 1e-4} if coarse else {}
    play(names, build(variant, base, zoo, lr=0.0, **options), zoo)


@pytest.mark.parametrize("p", [1.0, 1.5, 3.0, math.inf])
@pytest.mark.parametrize("dtype", slow_but(DTYPES, torch.float16), ids=str)
def test_any_sequence_in_every_norm(p: float, dtype: torch.dtype) -> None:
    zoo = Zoo(dtype)
    names = random.Random(f"{p} {dtype}").choices(list(TROUBLES), k=30)
    play(names, build("ASAM", "SGD", zoo, lr=0.0, p=p), zoo)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("ordinary", torch.float32),
        ("nan_in_first_pass", torch.float32),
        ("branch_used_in_first_pass_only", torch.float32),
        ("exception_in_second_call", torch.float32),
        ("keyboard_interrupt", torch.float32),
    ],
)
def test_a_careless_wrapper_is_noticed(name: str, dtype: torch.dtype) -> None:
    zoo = Zoo(dtype)
    careless = Careless(torch.optim.SGD(zoo.parameters(), lr=0.0))
    with pytest.raises(AssertionError, match="changed"):
        play([name] * 20, careless, zoo)


def test_the_body_runs_elsewhere() -> None:
    """Otherwise all of the above would hold for an optimizer that does nothing."""
    zoo = Zoo()
    optimizer = build("SAM", "SGD", zoo)
    before = {name: p.detach().clone() for name, p in zoo.named_parameters()}
    backward(zoo)
    with optimizer.perturbed():
        moved = {name: p.detach() - before[name] for name, p in zoo.named_parameters()}
    assert not moved.pop("frozen").any()
    assert all(shift.any() for shift in moved.values())
    length = torch.cat([shift.flatten() for shift in moved.values()]).norm()
    assert length.item() == pytest.approx(0.05, rel=1e-5)


class InterruptAfter(TorchDispatchMode):
    """Interrupt once, after the n-th operation on tensors."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return result


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_interrupt_at_any_moment(variant: str) -> None:
    """While the weights are written and while they are put back, as well as in the body."""
    zoo = Zoo()
    optimizer = build(variant, "SGD", zoo, lr=0.0)
    before, around = bits(zoo), zoo.buffer.clone()
    backward(zoo)
    grads = [p.grad for p in zoo.parameters()]
    n, fired = 0, True
    while fired:
        n += 1
        for p, grad in zip(zoo.parameters(), grads, strict=True):
            p.grad = grad
        fired = False
        try:
            with InterruptAfter(n), optimizer.perturbed():
                zoo.scalar.grad = torch.ones(())
        except KeyboardInterrupt:
            fired = True
        assert_same_bits(before, zoo)
        assert torch.equal(zoo.buffer, around)
    assert n > 5
    ordinary(optimizer, zoo)


def test_large_tensors_in_pieces_and_strided_ones() -> None:
    """Pieces are views: of dense tensors in any order of dimensions, not of others."""
    torch.manual_seed(1)
    store = torch.randn(300, 600)
    module = torch.nn.ParameterDict(
        {
            "plain": torch.randn(300, 500),
            "transposed": torch.randn(400, 300).t(),
            "strided": store[:, ::2],
            "last": torch.randn(8, 64, 16, 16).to(memory_format=torch.channels_last),
        }
    )
    optimizer = build("SAM", "SGD", module, lr=0.0)
    before, around = bits(module), store.clone()
    for _ in range(3):
        optimizer.zero_grad()
        sum((p * p.detach()).sum() for p in module.parameters()).backward()
        with optimizer.perturbed():
            sum(p.square().sum() for p in module.parameters()).backward()
        optimizer.step()
        assert_same_bits(before, module)
        assert torch.equal(store, around)
