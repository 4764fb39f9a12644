"""A compiled model is compiled once, and operations do not multiply with the number of tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from cases import VARIANTS, build, same

STEPS = 6


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def batch(step: int) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(step)
    return torch.randn(8, 4, generator=source), torch.randint(2, (8,), generator=source)


def train(model: Any, optimizer: Any) -> None:
    for i in range(STEPS):
        x, y = batch(i)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        with optimizer.perturbed():
            nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def compiled_in_place(model: nn.Module, backend: Any) -> nn.Module:
    model.compile(backend=backend)
    return model


WAYS = {
    "torch.compile": lambda model, backend: torch.compile(model, backend=backend),
    "in place": compiled_in_place,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "way", "given"),
    [
        *((variant, "torch.compile", "compiled") for variant in VARIANTS),
        ("SAM", "torch.compile", "original"),
        ("SAM", "torch.compile", "none"),
        ("SAM", "in place", "original"),
        ("SAM", "in place", "none"),
    ],
)
def test_no_recompilation_and_the_same_result(variant: str, way: str, given: str) -> None:
    torch.manual_seed(0)
    model = Net()
    twin = copy.deepcopy(model)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = WAYS[way](model, counter)
    options = {"model": {"compiled": compiled, "original": model}[given]} if given != "none" else {}
    optimizer = build(variant, "SGD", model, **options)
    frames = []
    for i in range(STEPS):
        x, y = batch(i)
        optimizer.zero_grad()
        nn.functional.cross_entropy(compiled(x), y).backward()
        with optimizer.perturbed():
            nn.functional.cross_entropy(compiled(x), y).backward()
        optimizer.step()
        frames.append(counter.frame_count)
    assert frames[0] >= 1
    assert len(set(frames)) == 1, frames

    torch.manual_seed(0)
    Net()
    eager = build(variant, "SGD", twin, **({"model": twin} if options else {}))
    train(twin, eager)
    assert same(dict(model.named_parameters()), dict(twin.named_parameters()))
    assert same(dict(model.named_buffers()), dict(twin.named_buffers()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of inductor itself
@pytest.mark.parametrize("variant", VARIANTS)
def test_inductor(variant: str) -> None:
    torch.manual_seed(0)
    model = Net()
    model.layers[3].p = 0.0  # inductor draws other random numbers than eager
    twin = copy.deepcopy(model)
    compiled = torch.compile(model)
    train(compiled, build(variant, "SGD", model, model=compiled))
    train(twin, build(variant, "SGD", twin, model=twin))
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


class Count(TorchDispatchMode):
    """Count the operations that read or write numbers: all but views and allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and "empty" not in func.name() and "profiler" not in func.name():
            self.operations.append(func.name())
        return func(*args, **(kwargs or {}))


def operations(optimizer: Any, params: list[Tensor]) -> dict[str, int]:
    counts = {}
    for _ in range(2):  # the first step makes the state
        for p in params:
            p.grad = torch.rand_like(p)
        with Count() as around, optimizer.perturbed():
            for p in params:
                p.grad = torch.rand_like(p)
        made = len(params)
        with Count() as step:
            optimizer.step()
        with Count() as base:
            optimizer.base.step()
        counts = {
            "perturbed": len(around.operations) - made,
            "check": len(step.operations) - len(base.operations),
            "base": len(base.operations),
        }
    return counts


@pytest.mark.parametrize("p", [2.0, float("inf")])
@pytest.mark.parametrize("variant", VARIANTS)
def test_operations_do_not_grow_with_the_number_of_tensors(variant: str, p: float) -> None:
    """No more than those of the plain foreach optimizer do: not at all."""
    counts = {}
    for number in (10, 110):
        params = [nn.Parameter(torch.ones(3)) for _ in range(number)]
        named = [(f"{i}.weight", w) for i, w in enumerate(params)]
        base = torch.optim.SGD(named, lr=0.1, momentum=0.9, foreach=True)
        counts[number] = operations(VARIANTS[variant](base, p=p), params)
    growth = {key: counts[110][key] - counts[10][key] for key in counts[10]}
    assert growth["base"] == 0
    assert growth == {"perturbed": 0, "check": 0, "base": 0}, counts


def test_the_count_would_notice() -> None:
    params = [nn.Parameter(torch.ones(3)) for _ in range(10)]
    with Count() as count, torch.no_grad():
        for p in params:
            p.add_(1.0)
    assert len(count.operations) == 10
