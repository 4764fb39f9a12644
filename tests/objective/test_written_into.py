"""What a loss function writes into outputs and targets reaches nobody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin import Ball, EmpiricalLoss, GaussNewton
from flatmin.sharpness import m_sharpness, top_eigenvalues

Loss = Callable[[Tensor, Tensor], Tensor]


def ignoring(outputs: Tensor, targets: Tensor) -> Tensor:
    """Segmentation's 255 as torch's -100."""
    targets[targets == 255] = -100
    return F.cross_entropy(outputs, targets)


def not_ignored(targets: Tensor) -> Tensor:
    return (targets != 255).sum()


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (8,), generator=generator)
    y[:3] = 255
    return x, y


def test_the_weight_is_that_of_the_targets_as_given() -> None:
    model, (x, y) = nn.Linear(4, 3).double(), data()
    true = F.cross_entropy(model(x), torch.where(y == 255, -100, y)).detach()
    for batches in ([(x, y)], [(x[:4], y[:4]), (x[4:], y[4:])]):
        loss = EmpiricalLoss(model, ignoring, batches, weight=not_ignored)
        torch.testing.assert_close(loss.value({}), true, rtol=1e-14, atol=0)
    assert int((y == 255).sum()) == 3
    ball = Ball(0.1)
    clean = EmpiricalLoss(
        model,
        lambda o, t: F.cross_entropy(o, t, ignore_index=255),
        [(x, y)],
        weight=not_ignored,
    )
    found = [m_sharpness(each, each.params, ball, m=5).value for each in (loss, clean)]
    assert found[0] == pytest.approx(found[1], rel=1e-13)


WRITERS: dict[str, tuple[Loss, Loss]] = {
    "targets": (
        lambda o, t: F.mse_loss(o, t.sub_(1.0).div_(2.0)),
        lambda o, t: F.mse_loss(o, (t - 1.0) / 2.0),
    ),
    "outputs": (
        lambda o, t: F.mse_loss(o.sub_(1.0).mul_(3.0), t),
        lambda o, t: F.mse_loss((o - 1.0) * 3.0, t),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("writing", "reading"), WRITERS.values(), ids=WRITERS)
def test_a_loss_that_writes_is_that_which_does_not(
    writing: Loss, reading: Loss, dtype: torch.dtype
) -> None:
    """Asked about parts, and again about the same outputs, it gives the same."""
    model = nn.Linear(4, 1).to(dtype)
    x, t = torch.randn(8, 4, dtype=dtype), torch.randn(8, 1, dtype=dtype)
    before, batches = t.clone(), [(x[:4], t[:4]), (x[4:], t[4:])]
    one, other = (EmpiricalLoss(model, loss, batches) for loss in (writing, reading))
    assert one.value({}) == other.value({})
    w = one.params
    found = [top_eigenvalues(GaussNewton(each), w).value for each in (one, other)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert torch.equal(t, before)
