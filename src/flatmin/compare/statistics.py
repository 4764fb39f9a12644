"""Means over seeds and paired differences, with the intervals that few seeds allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds.

    Attributes:
        value: The mean; NaN if there is nothing to average.
        error: Its standard error; NaN for a single seed.
        half: Half-width of its 95 % t-interval; infinite for a single seed.
        n: Number of seeds.
    """

    value: float
    error: float
    half: float
    n: int

    @property
    def sign(self) -> int:
        """1 or −1 where the interval excludes zero, else 0."""
        return 0 if not abs(self.value) > self.half else int(math.copysign(1, self.value))

    def beyond(self, among: int) -> int:
        """1 or −1 where the interval excludes zero at a level shared among several, else 0."""
        if self.n < 2 or not abs(self.value) > t_quantile(self.n - 1, among) * self.error:
            return 0
        return int(math.copysign(1, self.value))

    def __str__(self) -> str:
        if self.n < 2:
            return f"{self.value:.2f} (one seed)" if self.n else "–"
        return f"{self.value:.2f} ± {self.error:.2f}"


def mean(values: Sequence[float | None], *, overlap: float = 0.0) -> Mean:
    """Mean of what is there, with its 95 % t-interval.

    Args:
        values: One for each seed; None stands for a run that did not end well.
        overlap: Test over training examples where each seed cuts the same data anew; such values
            depend on each other, and the variance of their mean is s² (1/n + overlap).

    Returns:
        The mean.

    Source:
        Nadeau and Bengio 2003, doi:10.1023/A:1024068626366, section 3.2, for ``overlap``.
    """
    known = [value for value in values if value is not None]
    n = len(known)
    if not n:
        return Mean(math.nan, math.nan, math.inf, 0)
    middle = math.fsum(known) / n
    if n == 1:
        return Mean(middle, math.nan, math.inf, 1)
    variance = math.fsum((v - middle) ** 2 for v in known) / (n - 1)
    error = math.sqrt(variance * (1 / n + overlap))
    return Mean(middle, error, t_quantile(n - 1) * error, n)


def paired(
    one: Sequence[float | None], other: Sequence[float | None], *, overlap: float = 0.0
) -> Mean:
    """Mean of the differences one − other, seed by seed; ``overlap`` as for :func:`mean`."""
    return mean(subtract(one, other), overlap=overlap)


def subtract(one: Sequence[float | None], other: Sequence[float | None]) -> list[float | None]:
    """The differences, None where one of the two is missing."""
    pairs = zip(one, other, strict=True)
    return [None if a is None or b is None else a - b for a, b in pairs]


def signed(difference: Mean) -> str:
    """A difference with its 95 % interval, in words that fit a table."""
    if difference.n < 2:
        return f"{difference.value:+.2f} (one seed)" if difference.n else "–"
    low, high = difference.value - difference.half, difference.value + difference.half
    return f"{difference.value:+.2f} [{low:+.2f}, {high:+.2f}]"


def t_quantile(freedom: int, among: int = 1) -> float:
    """97.5 % quantile of Student's t; 12.7 for one degree of freedom, 4.30 for two.

    With ``among`` the 2.5 % beyond it are shared among as many, as by Bonferroni.
    """
    from scipy.special import stdtrit  # comes with scikit-learn

    return float(stdtrit(freedom, 1 - 0.025 / among))
