"""The toy distribution of the report: two discs inside two rings, side by side."""

import math

import torch
from torch import Tensor


def figure8(
    num_points: int,
    variance: float | Tensor,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    r"""Points of two classes around the centers (−5, 0) and (5, 0), a quarter each.

    .. math:: x = (\pm 5, 0) + r\,(\cos φ, \sin φ), \qquad
              r = 4\,y + |N(0, σ^2)|, \qquad φ \sim U[0, 2π)

    Class y = 0 lies near a center, class y = 1 outside a circle of radius 4 around it; the larger
    the variance, the more they overlap. The points come class by class: shuffle them for batches.

    Args:
        num_points: Number of points ``n``, divisible by 4.
        variance: The variance σ² (not σ) in squared units of the plane. A tensor of any shape
            gives that many independent sets at once, each with its own variance: for 20 sets of
            variance 2, pass ``torch.full((20,), 2.0)``.
        generator: Source of randomness; its device is that of the result.
        dtype: Floating type of the points.

    Returns:
        Points of shape [..., n, 2] and labels 0 or 1 (int64) of shape [..., n], where ``...`` is
        the shape of ``variance``.

    Raises:
        ValueError: If ``num_points`` is not a positive multiple of 4, or a variance is negative or
            not finite.

    Example:
        >>> points, labels = figure8(8, variance=0.0)  # no noise: centers, and circles around them
        >>> points[labels == 0, 0].tolist()
        [-5.0, -5.0, 5.0, 5.0]
        >>> labels.tolist()
        [0, 0, 0, 0, 1, 1, 1, 1]
        >>> figure8(8, torch.tensor([1.0, 5.0, 15.0]))[0].shape
        torch.Size([3, 8, 2])

    Source:
        The report, section II and figure 6.
    """
    if num_points < 4 or num_points % 4:
        raise ValueError(
            "num_points must be a positive multiple of 4, a quarter for each class and center, "
            f"got {num_points}."
        )
    device = generator.device if generator is not None else None
    variance = torch.as_tensor(variance, dtype=dtype, device=device)
    if not bool((variance.isfinite() & (variance >= 0)).all()):
        raise ValueError(f"variance must be finite and at least 0, got {variance.tolist()}.")
    shape = (*variance.shape, num_points)
    device = variance.device
    labels = torch.arange(num_points, device=device).ge(num_points // 2).long()
    center = torch.tensor([-5.0, 5.0], dtype=dtype, device=device)
    center = center.repeat_interleave(num_points // 4).repeat(2)
    noise = torch.randn(shape, generator=generator, dtype=dtype, device=device)
    angle = 2 * math.pi * torch.rand(shape, generator=generator, dtype=dtype, device=device)
    radius = 4 * labels + variance.sqrt()[..., None] * noise.abs()
    points = torch.stack((center + radius * angle.cos(), radius * angle.sin()), dim=-1)
    return points, labels.expand(shape)
