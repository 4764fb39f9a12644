"""Average sharpness against moments known by hand."""

from __future__ import annotations

import math

import pytest
import torch
from networks import Counting, trained

from flatmin import Ball, Elementwise, FunctionObjective
from flatmin.sharpness import average_sharpness
from slowly import slow_but

BOWL = FunctionObjective(lambda w: sum(t.square().sum() for t in w.values()))


@pytest.mark.parametrize(
    ("p", "moment"),
    [
        pytest.param(2.0, lambda d: d / (d + 2), marks=pytest.mark.slow),  # E‖u‖² in the unit ball
        (math.inf, lambda d: d / 3),
        pytest.param(1.0, lambda d: 2 * d / ((d + 1) * (d + 2)), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("dimension", slow_but([1, 7], 7))
def test_second_moment(p: float, moment: object, dimension: int) -> None:
    w = {"x": torch.zeros(dimension, dtype=torch.float64)}
    found = average_sharpness(BOWL, w, Ball(0.5, p), samples=1500)
    expected = 0.25 * moment(dimension)  # type: ignore[operator]
    assert abs(found.value - expected) <= 4 * found.standard_error
    assert found.standard_error < 0.05 * expected


@pytest.mark.slow
def test_scale_and_linear_part() -> None:
    """The linear part averages out; |w|² u² stays."""
    w = {"x": torch.tensor([2.0, -3.0], dtype=torch.float64)}
    found = average_sharpness(BOWL, w, Ball(0.1, scale=Elementwise()), samples=2000)
    assert abs(found.value - 0.01 * (4 + 9) / 4) <= 4 * found.standard_error
    assert found.mean_loss == found.loss + found.value == pytest.approx(13 + found.value)


@pytest.mark.slow
def test_standard_error_is_that_of_the_mean() -> None:
    """Of 100 seeds, about 95 lie within two standard errors of the exact mean."""
    w = {"x": torch.zeros(3, dtype=torch.float64)}
    inside = 0
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        found = average_sharpness(BOWL, w, Ball(1.0), samples=30, generator=generator)
        inside += abs(found.value - 0.6) <= 2 * found.standard_error
    assert inside >= 90


def test_cost_and_repeatability() -> None:
    net = trained(0)
    counting = Counting(net.loss)
    ball = Ball(0.5, scale=Elementwise())
    found = average_sharpness(counting, net.loss.params, ball, samples=7)
    assert (counting.forwards, counting.gradients, counting.hvps) == (8, 0, 0)
    assert (found.forwards, found.gradients, found.samples) == (8, 0, 7)
    assert found == average_sharpness(net.loss, net.loss.params, ball, samples=7)


def test_too_few_samples() -> None:
    with pytest.raises(ValueError, match="samples must be at least 2, got 1"):
        average_sharpness(BOWL, {"x": torch.zeros(1)}, Ball(1.0), samples=1)
