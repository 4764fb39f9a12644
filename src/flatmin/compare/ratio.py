"""What part of one paired difference another one is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flatmin.compare.statistics import t_quantile


@dataclass(frozen=True, slots=True)
class Share:
    """A ratio of two means over the same seeds, with its 95 % interval.

    Attributes:
        value: The ratio of the means; NaN without seeds.
        low: Lower end; −∞ where the denominator cannot be told from zero.
        high: Upper end; ∞ there.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "–"
        if math.isinf(self.low):
            return f"{self.value:.0%} (no interval)"
        return f"{self.value:.0%} [{self.low:.0%}, {self.high:.0%}]"


def share(
    one: Sequence[float | None], whole: Sequence[float | None], base: Sequence[float | None]
) -> Share:
    r"""What part of the gain of ``whole`` over ``base`` is left in ``one``.

    With the differences :math:`a_i` (one − base) and :math:`b_i` (whole − base), the ratio
    :math:`\bar a / \bar b`, and as its interval all θ for which a t-test does not tell the mean of
    :math:`a_i - \theta b_i` from zero.

    Args:
        one: Values by seed; None where a run did not end well.
        whole: Those of the whole gain.
        base: Those of the base.

    Returns:
        The share. For a single seed, or where the whole gain is not clear, it has no interval.

    Example:
        >>> str(share([2.0, 3.1, 2.6], [4.0, 6.0, 5.0], [0.0, 0.0, 0.0]))
        '51% [47%, 53%]'

    Source:
        Fieller 1954, Some problems in interval estimation.
    """
    known = [
        (a - c, b - c)
        for a, b, c in zip(one, whole, base, strict=True)
        if a is not None and b is not None and c is not None
    ]
    n = len(known)
    if not n:
        return Share(math.nan, -math.inf, math.inf)
    a, b = (math.fsum(column) / n for column in zip(*known, strict=True))
    value = a / b if b else math.nan
    if n == 1:
        return Share(value, -math.inf, math.inf)

    def spread(i: int, j: int) -> float:
        """Squared t-quantile times the covariance of the two means."""
        middle = (a, b)
        total = math.fsum((pair[i] - middle[i]) * (pair[j] - middle[j]) for pair in known)
        return float(t_quantile(n - 1) ** 2 * total / (n - 1) / n)

    # θ² · square − 2 θ · half + rest ≤ 0
    square, half, rest = b * b - spread(1, 1), a * b - spread(0, 1), a * a - spread(0, 0)
    if square <= 0.0:
        return Share(value, -math.inf, math.inf)
    reach = math.sqrt(max(half * half - square * rest, 0.0))
    return Share(value, (half - reach) / square, (half + reach) / square)
