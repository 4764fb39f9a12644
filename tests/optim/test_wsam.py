"""Decoupled WSAM: what lies apart from the gradients, and what becomes of them before the step."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin import GSAM, SSAM, WSAM, FriendlySAM


def cubes() -> list[nn.Parameter]:
    """Parameters of the loss Σ w³."""
    return [nn.Parameter(torch.linspace(a, 1.5, 5, dtype=torch.float64)) for a in (-1.0, 0.5)]


def after_block(params: list[nn.Parameter], factor: float = 1.0) -> WSAM:
    """An optimizer of theirs that has left a block, where the loss is so many times as large."""
    optimizer = WSAM(torch.optim.SGD(params, lr=0.05), 0.3)
    sum((p**3).sum() for p in params).backward()
    with optimizer.perturbed():
        (factor * sum((p**3).sum() for p in params)).backward()
    return optimizer


@pytest.mark.parametrize("look", ["nobody", "a view of the gradient", "other strides"])
def test_the_gradient_after_the_block_is_the_first_one_wherever_it_lies(look: str) -> None:
    """Decoupled WSAM lets two gradients change places, unless somebody looks at the memory."""
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    w = nn.Parameter(torch.randn(6, 6, generator=generator, dtype=torch.float64))

    def loss() -> Tensor:
        return ((w @ a) ** 3).sum() / 50

    start = w.detach().clone()
    (g,) = torch.autograd.grad(loss(), w)
    optimizer = WSAM(torch.optim.SGD([w], lr=0.1), 0.3, gamma=0.75)
    loss().backward()
    with optimizer.perturbed():
        loss().backward()
        assert w.grad is not None
        s = w.grad.clone()
        if look == "other strides":
            w.grad = w.grad.t().contiguous().t()
        view = w.grad.view(-1) if look == "a view of the gradient" else None
    assert torch.equal(w.grad, g)
    assert view is None or torch.equal(view, g.view(-1))
    optimizer.step()
    torch.testing.assert_close(w, start - 0.1 * (g + 3 * (s - g)), rtol=1e-13, atol=1e-14)


def test_a_frozen_row_is_not_moved_by_the_rise_without_a_word() -> None:
    """A row of many that is cleared after the block hardly changes a norm."""
    table = nn.Parameter(torch.linspace(0.5, 1.5, 4000, dtype=torch.float64).view(1000, 4))
    optimizer = after_block([table, *cubes()])
    assert table.grad is not None
    before = table.grad.norm()
    table.grad[7] = 0.0
    assert 0 < 1 - table.grad.norm() / before < 1e-3
    with pytest.raises(RuntimeError, match="otherwise than by a common factor"):
        optimizer.step()


def test_a_gradient_that_is_dropped_after_the_block_is_told() -> None:
    params = cubes()
    optimizer = after_block(params)
    params[0].grad = None
    with pytest.raises(RuntimeError, match="otherwise than by a common factor"):
        optimizer.step()


def test_a_second_gradient_that_is_not_finite_is_seen_before_the_step() -> None:
    """As a GradScaler looks; the rise lies apart, where it does not."""
    params = [*cubes(), nn.Parameter(torch.zeros(0))]  # an empty one has no largest number
    start = [p.detach().clone() for p in params]
    optimizer = after_block(params, math.inf)
    assert not any(p.grad.isfinite().any() for p in params[:2])
    with pytest.warns(RuntimeWarning, match="skipped a step"):
        optimizer.step()
    assert all(map(torch.equal, params, start))


@pytest.mark.parametrize("kind", [GSAM, SSAM, WSAM, FriendlySAM, partial(WSAM, decoupled=False)])
def test_a_sparse_gradient_gives_what_a_dense_one_does(kind: Any) -> None:
    ends = []
    for sparse in (False, True):
        table = nn.Embedding(6, 3, sparse=sparse, dtype=torch.float64)
        with torch.no_grad():
            table.weight.copy_(torch.arange(18.0).view(6, 3) / 9 - 1)
        optimizer = kind(torch.optim.SGD(table.parameters(), lr=0.05), 0.3)
        for places in ([0, 2, 2], [1, 2, 5]):
            for where in (optimizer.zero_grad, optimizer.perturbed):
                with where() or nullcontext():
                    (table(torch.tensor(places)) ** 3).sum().backward()
            optimizer.step()
        ends.append(table.weight.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-13)


def test_a_rise_whose_square_overflows_is_finite() -> None:
    w = nn.Parameter(torch.ones(1))
    optimizer = WSAM(torch.optim.SGD([w], lr=1.0), 0.5, gamma=0.5)
    w.square().sum().backward()
    with optimizer.perturbed():
        (1e20 * w.square().sum()).backward()
    assert w.grad is not None
    assert w.grad.item() == 2.0
    optimizer.step()
    torch.testing.assert_close(w.detach(), torch.tensor([-3e20]), rtol=1e-6, atol=0)
