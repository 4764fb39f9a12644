"""Average-case sharpness: how far the loss rises at random points of a ball."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from flatmin import _tree as tree
from flatmin._given import check_count
from flatmin._room import walking
from flatmin._types import Params
from flatmin.ball import Ball
from flatmin.objective import Objective
from flatmin.sharpness import _point as point
from flatmin.sharpness.measurement import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageSharpness(Estimate):
    """Mean rise of the loss in a ball.

    Attributes:
        loss: Loss at the point itself.

    Example:
        >>> AverageSharpness(value=0.5, standard_error=0.1, samples=100, loss=1.0).mean_loss
        1.5
    """

    loss: float

    @property
    def mean_loss(self) -> float:
        """Mean loss over the ball."""
        return self.loss + self.value


@walking()
def average_sharpness(
    objective: Objective,
    params: Params,
    ball: Ball,
    *,
    samples: int = 100,
    generator: torch.Generator | None = None,
) -> AverageSharpness:
    r"""Mean rise of the loss over random points of a ball.

    .. math:: S(w) = E_u\, L(w + T_w u) - L(w), \quad u \text{ uniform in } \|u\|_p \le \rho

    In many dimensions nearly all of a ball lies near its edge, and for p = 2 the mean is close to
    that over Gaussian noise of deviation ρ/√d. Costs ``samples + 1`` forward passes over the data.

    Args:
        objective: Mean loss over a fixed data set, in nats per example for cross-entropy.
        params: The point ``w``: names to floating tensors of any shape. Read, never written.
        ball: The neighbourhood. ``ball.rho`` is in parameter units for ``Identity`` and
            dimensionless for ``Elementwise``.
        samples: Random points.
        generator: Source of randomness, on the device of ``params``; if not given, a fixed seed.
            The points are drawn without regard to ``params``, so that two networks measured under
            the same seed meet the same ``u``.

    Returns:
        ``value`` and its standard error, in units of the loss.

    Raises:
        ValueError: If ``samples`` is below two, or the loss at ``params`` is not finite.

    Example:
        The mean of x² over a ball of radius ρ in d dimensions is ρ² d/(d + 2): here 1/3.

        >>> from flatmin import FunctionObjective
        >>> bowl = FunctionObjective(lambda w: w["x"].square().sum())
        >>> found = average_sharpness(bowl, {"x": torch.zeros(1)}, Ball(rho=1.0), samples=1000)
        >>> abs(found.value - 1 / 3) < 3 * found.standard_error
        True

    Source:
        Andriushchenko et al. 2023, arXiv:2302.07011, eq. 1.
    """
    check_count("samples", samples, 2)
    point.check_ball(ball)
    here = point.survey(objective, params, ball.scale)
    random = point.source(generator, params)
    loss = point.finite(objective.value(params))
    rises = [
        objective.value(tree.add(params, ball.sample(params, random))).item() - loss
        for _ in range(samples)
    ]
    here.check_finite(sum(not math.isfinite(rise) for rise in rises), samples)
    value, error = point.mean_and_error(rises)
    here.check_rounding(value, loss)
    return AverageSharpness(
        value=value,
        standard_error=error,
        samples=samples,
        loss=loss,
        forwards=samples + 1,
        dead_fraction=here.dead_fraction,
        warnings=tuple(here.warnings),
    )
