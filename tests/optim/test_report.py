"""What the optimizer tells of a step is what happened; parts each climb by their own gradient."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import IN_PARTS, VARIANTS
from flatmin import SAM
from flatmin.ball import Ball
from flatmin.scale import Elementwise


def problem() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    return model, torch.randn(8, 4, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
@pytest.mark.parametrize("variant", VARIANTS)
def test_report_of_a_step(variant: str, p: float) -> None:
    model, x, y = problem()
    base = torch.optim.SGD(model.named_parameters(), lr=0.0)
    optimizer: Any = VARIANTS[variant](base, p=p)
    assert optimizer.report is None

    losses = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        losses.append(loss.detach())
        return loss

    optimizer.step(closure)
    optimizer.zero_grad()
    (model(x) - y).square().mean().backward()
    rho, scale = (0.5, Elementwise(0.01, biases=False)) if variant == "ASAM" else (0.05, None)
    ball = Ball(rho, p, scale) if scale else Ball(rho, p)
    point = {name: w.detach() for name, w in model.named_parameters()}
    grad = {name: w.grad for name, w in model.named_parameters() if w.grad is not None}
    report = optimizer.report
    assert report.grad_norm == pytest.approx(ball.support(point, grad).item() / rho, rel=1e-12)
    assert report.shift_norm == pytest.approx(rho, rel=1e-12)
    assert report.rise.item() == (losses[1] - losses[0]).item() > 0


def test_shift_norm_of_groups_with_radii_of_their_own() -> None:
    a, b = (nn.Parameter(torch.tensor([v], dtype=torch.float64)) for v in (1.0, 1.0))
    a.grad, b.grad = (torch.tensor([v], dtype=torch.float64) for v in (3.0, 4.0))
    groups = [{"params": [a], "sam_rho": 0.1}, {"params": [b], "sam_rho": 0.3}]
    optimizer = SAM(torch.optim.SGD(groups, lr=0.0))
    with optimizer.perturbed():
        shift = math.hypot(a.item() - 1.0, b.item() - 1.0)
    assert optimizer.report is not None
    assert optimizer.report.grad_norm == pytest.approx(5.0, rel=1e-12)
    assert optimizer.report.shift_norm == pytest.approx(shift, rel=1e-12)


def test_no_way_to_climb_is_told() -> None:
    w = nn.Parameter(torch.ones(3))
    optimizer = SAM(torch.optim.SGD([w], lr=0.1))
    w.grad = torch.zeros(3)
    with optimizer.perturbed():
        pass
    assert optimizer.report is not None
    assert (optimizer.report.grad_norm, optimizer.report.shift_norm) == (0.0, 0.0)


@pytest.mark.parametrize("variant", IN_PARTS)
def test_micro_batches_sum_what_each_part_gives(variant: str) -> None:
    model, x, y = problem()
    optimizer: Any = VARIANTS[variant](torch.optim.SGD(model.named_parameters(), lr=0.1))
    total = [torch.zeros_like(w) for w in model.parameters()]
    for part_x, part_y in zip(x.chunk(4), y.chunk(4), strict=True):
        optimizer.zero_grad()
        (model(part_x) - part_y).square().mean().backward()
        with optimizer.perturbed():
            ((model(part_x) - part_y).square().mean() / 4).backward()
        total = [t + w.grad for t, w in zip(total, model.parameters(), strict=True)]
    optimizer.zero_grad()
    with optimizer.micro_batches():
        for part_x, part_y in zip(x.chunk(4), y.chunk(4), strict=True):
            (model(part_x) - part_y).square().mean().backward()
            with optimizer.perturbed():
                ((model(part_x) - part_y).square().mean() / 4).backward()
    for want, w in zip(total, model.parameters(), strict=True):
        torch.testing.assert_close(w.grad, want, rtol=1e-12, atol=1e-15)
    before = [w.detach().clone() for w in model.parameters()]
    optimizer.step()
    for old, want, w in zip(before, total, model.parameters(), strict=True):
        torch.testing.assert_close(w.detach(), old - 0.1 * want, rtol=1e-12, atol=1e-15)


def test_one_failed_part_skips_the_step() -> None:
    w = nn.Parameter(torch.ones(2))
    optimizer = SAM(torch.optim.SGD([w], lr=0.1, momentum=0.9))
    with optimizer.micro_batches():
        for factor in (1.0, math.inf, 1.0):
            (w * factor).sum().backward()
            with optimizer.perturbed():
                w.sum().backward()
    with pytest.warns(RuntimeWarning, match="skipped a step"):
        optimizer.step()
    assert torch.equal(w.detach(), torch.ones(2)) and not optimizer.state[w]


def test_micro_batches_leaves_nothing_behind_when_the_body_raises() -> None:
    w = nn.Parameter(torch.ones(2))
    optimizer = SAM(torch.optim.SGD([w], lr=0.1))
    with pytest.raises(KeyError), optimizer.micro_batches():
        w.sum().backward()
        with optimizer.perturbed():
            w.sum().backward()
        raise KeyError
    assert w.grad is None
    optimizer.step()
    assert torch.equal(w.detach(), torch.ones(2))
    with (
        pytest.raises(RuntimeError, match="inside itself"),
        optimizer.micro_batches(),
        optimizer.micro_batches(),
    ):
        pass
