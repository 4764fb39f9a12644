"""One ``autocast`` around both passes: no cached half-precision weight hides the climb."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import VARIANTS, Careless, build, same

SOURCE = torch.Generator().manual_seed(0)
X, Y = torch.randn(64, 8, generator=SOURCE), torch.randn(64, 1, generator=SOURCE)

HALVES = [torch.bfloat16, torch.float16]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))


@contextmanager
def half(dtype: torch.dtype, enabled: bool = True) -> Any:
    with torch.autocast("cpu", dtype, enabled=enabled):
        yield


def losses(optimizer_of: Any, dtype: torch.dtype, around: str, steps: int = 3) -> list[Tensor]:
    """Of both passes of each step, and of the network after the block."""
    model = network()
    optimizer, seen = optimizer_of(model), []
    inner = half if around != "the passes alone" else None

    def loss(backward: bool = True) -> None:
        with half(dtype):
            value = nn.functional.mse_loss(model(X).float(), Y)
        seen.append(value.detach())
        if backward:
            value.backward()

    outer = {"the step": half(dtype), "the step, disabled": half(dtype, enabled=False)}
    for _ in range(steps):
        optimizer.zero_grad()
        with outer.get(around, nullcontext()) if inner else nullcontext():
            loss()
            with optimizer.perturbed():
                loss()
            loss(backward=False)
        optimizer.step()
        outer = {"the step": half(dtype), "the step, disabled": half(dtype, enabled=False)}
    return seen


@pytest.mark.parametrize("around", ["the step", "the step, disabled"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_around_both_passes_is_as_around_each(
    variant: str, dtype: torch.dtype, around: str
) -> None:
    def of(model: nn.Module) -> Any:
        return build(variant, "SGD", model, rho=1.0)

    expected = losses(of, dtype, "the passes alone")
    assert same(losses(of, dtype, around), expected)
    first, second, after = expected[:3]
    assert second > first * 1.05 and torch.equal(after, first)


def test_a_careless_wrapper_is_noticed() -> None:
    def of(model: nn.Module) -> Any:
        return Careless(torch.optim.SGD(model.parameters(), lr=0.0), rho=1.0)

    first, second, _ = losses(of, torch.bfloat16, "the step", steps=1)
    assert torch.equal(first, second)
