"""Sharpness by climbing: how far the loss rises on the way to the edge of a ball."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin._given import check_count
from flatmin._room import walking
from flatmin._types import Params
from flatmin.ball import Ball
from flatmin.objective import Objective
from flatmin.sharpness import _point as point
from flatmin.sharpness.measurement import Sharpness


def one_step_sharpness(objective: Objective, params: Params, ball: Ball) -> Sharpness:
    r"""Rise of the loss at the closed-form worst point of a ball: the SAM or ASAM step.

    .. math:: S(w) = L(w + \epsilon) - L(w), \quad
        \epsilon = \arg\max_{w + \epsilon \in B(w)} \langle \nabla L(w), \epsilon \rangle

    One linear step, not a search: where the loss curves, it may miss the maximum and even be
    negative. Costs one gradient and one forward pass over the data.

    Args:
        objective: Mean loss over a fixed data set, in nats per example for cross-entropy.
        params: The point ``w``: names to floating tensors of any shape. Read, never written.
        ball: The neighbourhood. ``ball.rho`` is in parameter units for ``Identity`` and
            dimensionless for ``Elementwise``.

    Returns:
        ``value``, the rise, and ``worst_loss``, the plotted "SAM loss", in units of the loss.

    Raises:
        ValueError: If the loss at ``params`` or its gradient is not finite.

    Example:
        ``2 x²`` rises from 2.0 at ``x = 1`` to 4.5 at ``x = 1.5``, the edge of the ball.

        >>> import torch
        >>> from flatmin import FunctionObjective
        >>> parabola = FunctionObjective(lambda w: 2 * w["x"].square().sum())
        >>> one_step_sharpness(parabola, {"x": torch.ones(1)}, Ball(rho=0.5)).value
        2.5

    Source:
        Foret et al. 2021, arXiv:2010.01412, eq. 2; Kwon et al. 2021, arXiv:2102.11600, eq. 5.
    """
    point.check_ball(ball)
    here = point.survey(objective, params, ball.scale)
    loss, grad = objective.value_and_grad(params)
    base = point.finite(loss)
    here.check_stationary(point.finite_support(replace(ball, rho=1.0).support(params, grad)))
    rise = objective.value(tree.add(params, ball.shift(params, grad))).item() - base
    if not math.isfinite(rise):
        rise = math.inf
    here.check_finite(int(math.isinf(rise)), 1)
    here.check_rounding(rise, base)
    here.warn(
        rise < 0.0,
        "the loss fell along its gradient: the step went past the maximum, so the loss curves "
        "strongly on the scale of rho; use worst_case_sharpness.",
    )
    return Sharpness(
        value=rise,
        loss=base,
        gradients=1,
        forwards=1,
        dead_fraction=here.dead_fraction,
        warnings=tuple(here.warnings),
    )


@walking()
def worst_case_sharpness(
    objective: Objective,
    params: Params,
    ball: Ball,
    *,
    steps: int = 20,
    restarts: int = 0,
    generator: torch.Generator | None = None,
) -> Sharpness:
    r"""Largest rise of the loss found in a ball, by climbing inside it.

    .. math:: S(w) = \max_{\epsilon \in B(w) - w} L(w + \epsilon) - L(w), \quad
        \epsilon_{k+1} = (1 - \gamma_k)\, \epsilon_k + \gamma_k
        \arg\max_{\epsilon \in B(w) - w} \langle \nabla L(w + \epsilon_k), \epsilon \rangle

    Every step moves towards the closed-form worst point for the gradient at the best point so far,
    which keeps it in the ball without a projection, for every p. A step is kept if the loss rose;
    then the fraction γ doubles, up to one, and else it is halved. The first trial is the step of
    ``one_step_sharpness``, so the result is never below it, nor below zero. A rescaled network
    takes the corresponding steps, so the search is as invariant as the ball.

    What it finds is a local maximum, a lower bound of the true one: restarts often find more.
    Costs ``steps`` forward passes, and at most as many gradients, for each start; and a gradient
    more for a stationary ``w``.

    Args:
        objective: Mean loss over a fixed data set, in nats per example for cross-entropy.
        params: The point ``w``: names to floating tensors of any shape. Read, never written.
        ball: The neighbourhood. ``ball.rho`` is in parameter units for ``Identity`` and
            dimensionless for ``Elementwise``.
        steps: Trial points of each climb.
        restarts: Further climbs, from random points of the ball. Where ``w`` is stationary no climb
            can start, and one from a random point takes its place.
        generator: Source of the random starts, on the device of ``params``; if not given, a fixed
            seed.

    Returns:
        ``value``, the rise at the best point found, and ``worst_loss``, in units of the loss.

    Raises:
        ValueError: If ``steps`` is below one or ``restarts`` below zero, or the loss at ``params``
            or its gradient is not finite.

    Example:
        At the bottom of ``x² / 2`` there is no gradient to follow, and still the edge is found.

        >>> import torch
        >>> from flatmin import FunctionObjective
        >>> parabola = FunctionObjective(lambda w: w["x"].square().sum() / 2)
        >>> found = worst_case_sharpness(parabola, {"x": torch.zeros(1)}, Ball(rho=2.0))
        >>> found.value, len(found.warnings)
        (2.0, 1)

    Source:
        Andriushchenko et al. 2023, arXiv:2302.07011, eq. 1; the climb is that of Frank and Wolfe
        1956, doi:10.1002/nav.3800030109.
    """
    check_count("steps", steps, 1)
    check_count("restarts", restarts, 0)
    point.check_ball(ball)
    here = point.survey(objective, params, ball.scale)
    random = point.source(generator, params)
    loss, grad = objective.value_and_grad(params)
    base = point.finite(loss)
    support = point.finite_support(replace(ball, rho=1.0).support(params, grad))
    here.warn(
        support == 0.0,
        "the scaled gradient T g is zero at this point, so the climb began at a random one.",
    )
    climbs = []
    if support > 0.0:
        still = tree.scale(params, 0.0)
        climbs.append(_climb(objective, params, ball, still, loss, grad, steps=steps))
    for _ in range(restarts if support > 0.0 else max(restarts, 1)):
        start = ball.sample(params, random)
        loss, grad = objective.value_and_grad(tree.add(params, start))
        climbs.append(_climb(objective, params, ball, start, loss, grad, steps=steps))

    rise = max(climb.best for climb in climbs) - base
    bad, forwards = sum(climb.bad for climb in climbs), steps * len(climbs)
    if rise <= 0.0:
        # The loss at w itself is the best known, unless what lies beyond could not be seen.
        rise = math.inf if bad else 0.0
        here.warn(not bad and support > 0.0, "no trial point was higher than w; use more steps.")
    here.check_finite(bad, forwards + len(climbs))
    here.check_rounding(rise, base)
    return Sharpness(
        value=rise,
        loss=base,
        gradients=sum(climb.gradients for climb in climbs) + (support == 0.0),
        forwards=forwards,
        dead_fraction=here.dead_fraction,
        warnings=tuple(here.warnings),
    )


@dataclass(frozen=True, slots=True)
class _Climb:
    """Loss at the best point, gradients evaluated, points whose loss was not finite."""

    best: float
    gradients: int
    bad: int


def _climb(
    objective: Objective,
    params: Params,
    ball: Ball,
    shift: Params,
    loss: Tensor,
    grad: Params,
    *,
    steps: int,
) -> _Climb:
    """Climb from a shift at which loss and gradient are known."""
    best = loss.item() if torch.isfinite(loss) else -math.inf
    reach, moved, gradients, bad = 1.0, False, 1, int(math.isinf(best))
    for _ in range(steps):
        if moved:
            grad = objective.value_and_grad(tree.add(params, shift))[1]
            gradients += 1
        # A mean of two points of the ball is in the ball.
        trial = tree.add(tree.scale(shift, 1.0 - reach), ball.shift(params, grad), alpha=reach)
        value = objective.value(tree.add(params, trial)).item()
        bad += not math.isfinite(value)
        moved = math.isfinite(value) and value > best
        if moved:
            shift, best, reach = trial, value, min(1.0, 2.0 * reach)
        else:
            reach /= 2.0
    return _Climb(best, gradients, bad)
