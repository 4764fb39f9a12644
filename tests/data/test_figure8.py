import math
from typing import Any

import pytest
import torch
from torch import Tensor

from flatmin.data import figure8


def radii(points: Tensor) -> Tensor:
    """Distance from the center on the side where each quarter lies."""
    quarter = points.shape[-2] // 4
    center = torch.tensor([-5.0, 5.0], dtype=points.dtype).repeat_interleave(quarter).repeat(2)
    return torch.linalg.vector_norm(points - torch.stack((center, 0 * center), dim=-1), dim=-1)


def draw(n: int, variance: float | Tensor, seed: int = 0, **options: Any) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return figure8(n, variance, generator=generator, dtype=torch.float64, **options)


def test_classes_and_centers_are_balanced() -> None:
    points, labels = draw(2000, 0.01)
    assert points.shape == (2000, 2)
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [1000, 1000]
    for label in (0, 1):
        # Noise this small keeps the rings of the two centers apart.
        left = points[labels == label, 0] < 0
        assert left.sum() == 500


def test_without_noise_one_class_is_two_points_and_the_other_two_circles() -> None:
    points, labels = draw(400, 0.0)
    r = radii(points)
    torch.testing.assert_close(r[labels == 0], torch.zeros(200, dtype=torch.float64))
    torch.testing.assert_close(r[labels == 1], torch.full((200,), 4.0, dtype=torch.float64))


@pytest.mark.parametrize("variance", [0.5, 2.0, 15.0])
def test_moments_of_the_radius_are_those_of_a_half_normal(variance: float) -> None:
    n = 200_000
    points, labels = draw(n, variance)
    sigma = math.sqrt(variance)
    for label, inner in ((0, 0.0), (1, 4.0)):
        excess = radii(points)[labels == label] - inner
        assert excess.min() > -1e-12
        # |N| has mean σ sqrt(2/π) and variance σ² (1 − 2/π); its square has variance 2σ⁴.
        standard_error = sigma * math.sqrt((1 - 2 / math.pi) / (n / 2))
        assert abs(excess.mean() - sigma * math.sqrt(2 / math.pi)) < 4 * standard_error
        assert abs(excess.square().mean() - variance) < 4 * variance * math.sqrt(2 / (n / 2))


def test_the_parameter_is_the_variance_and_not_the_deviation() -> None:
    points, labels = draw(200_000, 9.0)
    assert abs(radii(points)[labels == 0].mean() - 9.0 * math.sqrt(2 / math.pi)) > 4.0


def test_angles_are_uniform() -> None:
    n = 200_000
    points, _ = draw(n, 1.0)
    quarter = n // 4
    center = torch.tensor([-5.0, 5.0], dtype=torch.float64).repeat_interleave(quarter).repeat(2)
    angle = torch.atan2(points[:, 1], points[:, 0] - center)
    for k in (1, 2, 3):  # Fourier coefficients of the uniform law vanish; each has variance 1/(2n)
        assert abs((k * angle).cos().mean()) < 4 / math.sqrt(2 * n)
        assert abs((k * angle).sin().mean()) < 4 / math.sqrt(2 * n)


def test_a_tensor_of_variances_gives_independent_sets() -> None:
    variance = torch.tensor([[0.0, 1.0, 4.0], [0.0, 1.0, 4.0]])
    points, labels = draw(4000, variance)
    assert points.shape == (2, 3, 4000, 2)
    assert labels.shape == (2, 3, 4000)
    excess = radii(points) - 4 * labels
    mean = excess.mean(-1)
    torch.testing.assert_close(
        mean, variance.sqrt().double() * math.sqrt(2 / math.pi), rtol=0.05, atol=1e-12
    )
    assert not torch.equal(points[0, 1], points[1, 1])


def test_the_seed_decides() -> None:
    assert torch.equal(draw(40, 2.0, seed=3)[0], draw(40, 2.0, seed=3)[0])
    assert not torch.equal(draw(40, 2.0, seed=3)[0], draw(40, 2.0, seed=4)[0])


@pytest.mark.parametrize("number", [0, -4, 2, 2001])
def test_refuses_numbers_that_do_not_split(number: int) -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        figure8(number, 1.0)


@pytest.mark.parametrize("variance", [-1.0, math.nan, math.inf])
def test_refuses_what_is_no_variance(variance: float) -> None:
    with pytest.raises(ValueError, match="variance"):
        figure8(4, variance)
