"""What an optimizer tells of its last climb."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from flatmin.ball import Ball


@dataclass(frozen=True, slots=True)
class StepReport:
    r"""The last climb in numbers.

    Attributes:
        grad_norm: :math:`\|T_w g\|_q`, the size of the gradient as the ball sees it; for ``SAM``
            with p = 2 the ordinary gradient norm. In loss units per parameter unit (``SAM``) or
            loss units (``ASAM``). Of scaled gradients where a ``GradScaler`` scales the loss.
        shift_norm: :math:`\|T_w^{-1} \epsilon\|_p`, the size of the shift as the ball sees it:
            rho, or 0 where the gradient was zero or not finite.
        rise: :math:`L(w + \epsilon) - L(w)`, if the step was made with a closure; a scalar tensor
            on the device of the loss.

    Example:
        >>> StepReport(grad_norm=2.0, shift_norm=0.5).rise is None
        True
    """

    grad_norm: float
    shift_norm: float
    rise: Tensor | None = None


def report(supports: Mapping[Ball, Tensor], support: Tensor) -> StepReport:
    """Norms of gradient and shift from the supports of the groups' balls and of all together."""
    whole = support.item()
    parts = [(float(ball.rho), float(part)) for ball, part in supports.items()]
    ball = next(iter(supports))
    p, q = ball.p, ball.dual_order
    grad_norm = _norm([part / rho for rho, part in parts], q)
    if not math.isfinite(whole) or whole == 0.0:
        return StepReport(grad_norm, 0.0)
    if p == 1.0:
        # The whole shift lies where the largest value is; on a tie between groups, in their middle.
        radii = [rho for rho, part in parts if part == whole]
        return StepReport(grad_norm, sum(radii) / len(radii))
    shares = [rho * (part / whole) ** (q - 1.0) for rho, part in parts]
    return StepReport(grad_norm, _norm(shares, p))


def _norm(values: list[float], order: float) -> float:
    largest = max(values)
    if math.isinf(order) or not math.isfinite(largest) or largest == 0.0:
        return largest
    total = sum((value / largest) ** order for value in values)
    return float(largest * total ** (1.0 / order))
