"""Interrupts between any two calls, and bodies that meddle with the weights."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import ORIGINALS, VARIANTS, Zoo, assert_same_bits, bits, build, same
from flatmin import SAM
from flatmin.optim._blocks import Blocks
from slowly import slow_but


class InterruptAt:
    """Interrupt once, where the n-th function is entered or left: where CPython looks for signals.

    The functions are those of the wrapper and what it calls, not of the body.
    """

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        # A generator expression that is dropped is entered once more, and nobody hears of that.
        if (
            frame.f_code.co_name == "<genexpr>"
            or __file__ in name
            or "autograd/graph" in name
            or "_tensor.py" in name
        ):
            return None
        resumed = bool(frame.f_code.co_flags & inspect.CO_GENERATOR)
        if event == "call" or (event == "return" and not resumed):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self

    def run(self, function: Callable[[], object]) -> bool:
        """Whether the interrupt came."""
        before = sys.gettrace()
        # A collection would run what others want to be called when their objects go, such as
        # torch's compiler: an interrupt in there is heard by nobody.
        gc.disable()
        sys.settrace(self)
        try:
            function()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
            gc.enable()
            torch.set_grad_enabled(True)  # an interrupt in torch's own switch may leave it off
        return False


class Parameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.large = nn.Parameter(torch.ones(600, 500))  # cut into pieces
        self.small = nn.ParameterList([torch.ones(3, 3) for _ in range(5)])  # stacked

    def forward(self) -> Tensor:
        return self.large.sum() + sum(p.square().sum() for p in self.small)


def every_interrupt(optimizer: Any, module: nn.Module, stride: int = 1) -> list[int]:
    """The numbers of those that leave another weight."""
    wrong: list[int] = []
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    for n in range(1, 4000, stride):
        optimizer.zero_grad()
        module().backward()

        def visit() -> None:
            with optimizer.perturbed():
                module().backward()

        came = InterruptAt(n).run(visit)
        if not same(start, {name: p.detach() for name, p in module.named_parameters()}):
            wrong.append(n)
            with torch.no_grad():
                for name, p in module.named_parameters():
                    p.copy_(start[name])
        optimizer._visit.open = optimizer._visit.open and bool(wrong)  # a fault is told once
        if not came:
            return wrong
    raise AssertionError("the block never ended")


STRIDES = [*((variant, 1) for variant in ORIGINALS), *((variant, 11) for variant in VARIANTS)]


@pytest.mark.parametrize("given", slow_but([False, True], True))
@pytest.mark.parametrize(
    ("variant", "stride"), slow_but(STRIDES, *((variant, 11) for variant in ORIGINALS))
)
def test_an_interrupt_between_any_two_calls(variant: str, given: bool, stride: int) -> None:
    """On the way in and on the way back; the weights are there when it has been handled."""
    module = Parameters()
    optimizer = build(variant, "SGD", module, lr=0.0, model=module if given else None)
    assert every_interrupt(optimizer, module, stride) == []
    optimizer.zero_grad()
    module().backward()
    with optimizer.perturbed():  # and nothing is stuck
        module().backward()


def test_a_way_back_that_begins_with_something_else_is_noticed() -> None:
    class Leisurely(SAM):
        @contextmanager
        def perturbed(self) -> Iterator[None]:
            saved = [p.detach().clone() for p in self._params()]
            try:
                with torch.no_grad():
                    for p in self._params():
                        p.add_(0.1)
                yield
            finally:
                with torch.no_grad():
                    for p, old in zip(self._params(), saved, strict=True):
                        p.copy_(old)

        def _params(self) -> list[Tensor]:
            return [p for group in self.param_groups for p in group["params"]]

    module = Parameters()
    assert every_interrupt(Leisurely(torch.optim.SGD(module.parameters(), lr=0.0)), module)


# Bodies that put something else behind a parameter


def freed(zoo: Zoo) -> None:
    zoo.branch.data = torch.empty(0)


def cloned(zoo: Zoo) -> None:
    for p in zoo.parameters():
        p.data = p.data.clone()


def test_a_parameter_that_was_freed_keeps_no_other_from_its_value() -> None:
    zoo = Zoo()
    optimizer = build("SAM", "SGD", zoo, lr=0.0)
    before = bits(zoo)
    zoo().backward()
    lost = pytest.raises(
        RuntimeError, match=r"shape \(3,\) became one of \(0,\).*all other weights"
    )
    with lost, optimizer.perturbed():
        freed(zoo)
    after = bits(zoo)
    assert {name for name in before if before[name] != after[name]} == {"branch"}
    assert not optimizer.in_second_pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_new_memory_gets_the_old_values(dtype: torch.dtype) -> None:
    """Large tensors, which are cut into pieces, as well as small ones."""
    module = Parameters().to(dtype)
    optimizer = build("SAM", "SGD", module, lr=0.0)
    before = {name: value for name, (_, value) in bits(module).items()}
    module().backward()
    with optimizer.perturbed():
        cloned(module)
    assert before == {name: value for name, (_, value) in bits(module).items()}


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))]
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_copy_of_the_optimizer_inside(variant: str, clone: Any) -> None:
    zoo = Zoo()
    optimizer = build(variant, "SGD", zoo)
    zoo().backward()
    refused = pytest.raises(RuntimeError, match=r"inside perturbed.*leave the block first")
    with refused, optimizer.perturbed():
        clone(optimizer)
    assert_same_bits(bits(zoo), zoo)
    clone(optimizer)


def test_a_copy_after_a_block_steps_by_itself() -> None:
    zoo = Zoo()
    optimizer = build("SAM", "SGD", zoo)
    zoo().backward()
    with optimizer.perturbed():
        zoo().backward()
    twin = copy.deepcopy(optimizer)
    twin.step()
    optimizer.step()
    assert isinstance(twin, Blocks) and twin.param_groups[0]["params"][0] is not zoo.weight
