"""Critical sharpness: how long a step may be before the loss rises, by forward passes alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from flatmin import _tree as tree
from flatmin._given import check_count, check_named
from flatmin._room import walking
from flatmin._types import Params
from flatmin.ball import Ball
from flatmin.objective import Objective
from flatmin.scale import Scale
from flatmin.sharpness import _point as point
from flatmin.sharpness.measurement import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalSharpness(Measurement):
    """The curvature that a step feels; ``value`` is 2/η_c.

    Attributes:
        eta_c: Critical learning rate, the middle of ``bracket``.
        bracket: Two learning rates: after a step of the first the loss is lower than before, after
            one of the second it is not.

    Example:
        >>> CriticalSharpness(value=4.0, eta_c=0.5, bracket=(0.49, 0.51)).eta_c
        0.5
    """

    eta_c: float
    bracket: tuple[float, float]


@walking()
def critical_sharpness(
    objective: Objective,
    params: Params,
    *,
    scale: Scale = point.INVARIANT,
    update: Params | None = None,
    start: float | None = None,
    tolerance: float = 1 / 16,
    steps: int = 60,
) -> CriticalSharpness:
    r"""Curvature along an update, from the longest step that does not raise the loss.

    .. math:: \lambda_c = 2 / \eta_c, \quad \eta_c = \min \{\, \eta > 0 : L(w - \eta \Delta) \ge
        L(w) \,\}, \quad \Delta = T_w^2 \nabla L(w)

    On a quadratic it is the Rayleigh quotient of :math:`T_w H T_w` along :math:`T_w \nabla L`, so
    at most its largest eigenvalue. η is doubled while the loss falls, or halved while it rises,
    until both were seen, and the interval then halved. Of several crossings the one nearest to zero
    may be stepped over. Costs one forward pass for each η, about 6, and a gradient, or one more
    forward pass where ``update`` is given.

    Training is at the edge of stability where λ_c is 2/lr, for gradient descent with ``Identity``.

    Args:
        objective: Mean loss over a fixed data set, in nats per example for cross-entropy.
        params: The point ``w``: names to floating tensors of any shape. Read, never written.
        scale: The map ``T_w`` of the default Δ, steepest descent in its geometry; the default is
            invariant when units are rescaled.
        update: Another Δ, over some or all names: what an optimizer subtracts, per unit of its
            learning rate.
        start: First η to try, such as the learning rate or the last ``eta_c``. By default
            :math:`L / \|T_w \nabla L\|^2`, at which a straight line would reach zero loss; one for
            an ``update``.
        tolerance: Stop when the ends of the interval differ by no more than this fraction.
        steps: Most η to try until the loss both fell and rose; a warning tells if it did not.

    Returns:
        ``value``, in units of the loss (for ``Identity``, per parameter unit squared; for an
        ``update``, per unit of its η), and ``eta_c``. Infinite where no step lowered the loss, zero
        where none raised it.

    Raises:
        TypeError: If ``update`` does not map names to tensors.
        ValueError: If ``update`` names what is not in ``params`` or comes with a scale, an option
            is out of range, or the loss at ``params`` or its gradient is not finite.

    Example:
        ``2 x²`` falls from x = 1 with Δ = 4 x, and is as high again at x = −1, after η = 1/2.

        >>> import torch
        >>> from flatmin import FunctionObjective, Identity
        >>> parabola = FunctionObjective(lambda w: 2 * w["x"].square().sum())
        >>> w = {"x": torch.ones(1)}
        >>> found = critical_sharpness(parabola, w, scale=Identity(), tolerance=1e-9)
        >>> round(found.value, 6), round(found.eta_c, 6)
        (4.0, 0.5)

    Source:
        Kalra et al. 2026, arXiv:2601.16979, definition 2.1.
    """
    check_count("steps", steps, 1)
    if not 0.0 < tolerance < 1.0:
        raise ValueError(f"tolerance must be between 0 and 1, got {tolerance}.")
    if start is not None and not 0.0 < start < math.inf:
        raise ValueError(f"start must be above 0 and finite, got {start}.")
    here = point.survey(objective, params, scale)
    if update is None:
        loss, grad = objective.value_and_grad(params)
        base, ball = point.finite(loss), Ball(1.0, scale=scale)
        length = point.finite_support(ball.support(params, grad))
        here.check_stationary(length)
        # Of length one in the coordinates of the ball, for squares of a length may vanish.
        along, moves = ball.shift(params, grad), length > 0.0
        first = (abs(base) or 1.0) / length if moves else 1.0
    else:
        _check_update(update, params, scale)
        base, along, length = point.finite(objective.value(params)), dict(update), 1.0
        first, moves = 1.0, any(bool(t.any()) for t in along.values())
        here.warn(not moves, "the update is zero, so there is no step that could raise the loss.")
    fall = 0.0

    def falls(reach: float) -> bool:
        nonlocal fall
        after = objective.value(tree.add(params, along, alpha=-reach)).item()
        if not math.isfinite(after) or after >= base:
            return False
        fall = max(fall, base - after)
        return True

    used, low, high = 0, 0.0, math.inf
    if moves:
        first = first if start is None else start * length
        used, low, high = _crossing(falls, first, steps, tolerance)
        low, high = low / length, high / length
        if low == 0.0:
            high = 0.0
            here.warn(
                True,
                f"the loss did not fall after any of {used} steps, so the value has no bound; a "
                "step subtracts the update, which has to descend.",
            )
        elif math.isinf(high):
            here.warn(
                True,
                f"the loss was still lower after {low:.1e} times the update, the last of {used} "
                f"steps, so the value is only known to be below {2.0 / low:.1e}; use more steps, "
                "or a longer start.",
            )
        here.check_fall(fall, base)
    eta_c = (low + high) / 2.0
    return CriticalSharpness(
        value=2.0 / eta_c if eta_c else math.inf,
        eta_c=eta_c,
        bracket=(low, high),
        gradients=int(update is None),
        forwards=used + int(update is not None),
        dead_fraction=here.dead_fraction,
        warnings=tuple(here.warnings),
    )


def _crossing(
    falls: Callable[[float], bool], reach: float, steps: int, tolerance: float
) -> tuple[int, float, float]:
    """Trials, the longest reach known to lie before the crossing, the shortest one beyond it."""
    low, high, used = 0.0, math.inf, 0
    while used < steps and (low == 0.0 or math.isinf(high)):
        used += 1
        if falls(reach):
            low, reach = reach, 2.0 * reach
        else:
            high, reach = reach, reach / 2.0
    while 0.0 < low < high * (1.0 - tolerance) < math.inf:
        used, middle = used + 1, (low + high) / 2.0
        if not low < middle < high:
            break
        low, high = (middle, high) if falls(middle) else (low, middle)
    return used, low, high


def _check_update(update: Params, params: Params, scale: Scale) -> None:
    check_named(update)
    if scale != point.INVARIANT:
        raise ValueError(
            f"a scale shapes the default update, so it cannot go with another, got {scale}; give "
            "one of both."
        )
    for name, t in update.items():
        if name not in params or t.shape != params[name].shape:
            there = f"{tuple(params[name].shape)}" if name in params else "no such parameter"
            raise ValueError(
                "update must have names and shapes of params, got "
                f"{tuple(t.shape)} for {name!r}, where there is {there}."
            )
