"""Micro-batches under one perturbation are one batch; under one each, they are m-sharpness."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import IN_PARTS, ORIGINALS, PAIRS, build

SIZES = (3, 5, 4)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def batch(step: int) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(step)
    x = torch.randn(sum(SIZES), 4, generator=source, dtype=torch.float64)
    return x, torch.randint(3, (sum(SIZES),), generator=source)


def backward(model: nn.Module, x: Tensor, y: Tensor, share: float = 1.0) -> None:
    (share * nn.functional.cross_entropy(model(x), y)).backward()


def micro_batches(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor, float]]:
    parts = zip(x.split(SIZES), y.split(SIZES), strict=True)
    return [(a, b, len(a) / len(x)) for a, b in parts]


def whole(optimizer: Any, model: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    backward(model, x, y)
    with optimizer.perturbed():
        backward(model, x, y)
    optimizer.step()


def accumulated(optimizer: Any, model: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    for part in micro_batches(x, y):
        backward(model, *part)
    with optimizer.perturbed():
        for part in micro_batches(x, y):
            backward(model, *part)
    optimizer.step()


def per_micro_batch(optimizer: Any, model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The recipe of docs/optimizers.md: each block leaves its gradient, and they are summed."""
    params = list(model.parameters())
    total = [torch.zeros_like(p) for p in params]
    for part in micro_batches(x, y):
        optimizer.zero_grad()
        backward(model, *part)
        with optimizer.perturbed():
            backward(model, *part)
        for t, p in zip(total, params, strict=True):
            t += p.grad
    for t, p in zip(total, params, strict=True):
        p.grad = t
    optimizer.step()


def run(way: Any, variant: str, base: str, steps: int = 10) -> Tensor:
    torch.manual_seed(0)
    model = network()
    optimizer = build(variant, base, model)
    for step in range(steps):
        way(optimizer, model, *batch(step))
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize(("variant", "base"), PAIRS)
def test_accumulation_equals_the_large_batch(variant: str, base: str) -> None:
    one, many = run(whole, variant, base), run(accumulated, variant, base)
    assert (one - many).abs().max().item() <= 1e-12


@pytest.mark.parametrize("variant", IN_PARTS)
def test_a_perturbation_each_is_another_method(variant: str) -> None:
    one, many = run(whole, variant, "SGD"), run(per_micro_batch, variant, "SGD")
    assert (one - many).abs().max().item() > 1e-6


@pytest.mark.parametrize("variant", ORIGINALS)
def test_m_sharpness_by_hand(variant: str) -> None:
    """The mean over micro-batches of the gradient of each at its own worst point."""
    model = network()
    twin = copy.deepcopy(model)
    optimizer = build(variant, "SGD", model)
    x, y = batch(0)
    per_micro_batch(optimizer, model, x, y)

    expected = [torch.zeros_like(p) for p in twin.parameters()]
    for a, b, share in micro_batches(x, y):
        moved = copy.deepcopy(twin)
        climber = build(variant, "SGD", moved)
        backward(moved, a, b)
        with climber.perturbed():
            loss = nn.functional.cross_entropy(moved(a), b)
            grads = torch.autograd.grad(loss, list(moved.parameters()))
        for total, grad in zip(expected, grads, strict=True):
            total += share * grad
    bare = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for p, grad in zip(twin.parameters(), expected, strict=True):
        p.grad = grad
    bare.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
