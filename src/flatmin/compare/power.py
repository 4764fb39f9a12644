"""How sure a comparison can be: p-values, Holm's correction, and what so many seeds can tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from flatmin.compare.statistics import Mean

POWER = 0.8
LEVEL = 0.05
_MOST = 10_000  # seeds that anybody would count
# Chances in (0, 1) and their weights: a mean over a distribution is an integral over its quantiles.
_CHANCES, _WEIGHTS = (part / 2 for part in np.polynomial.legendre.leggauss(200))


def p_value(difference: Mean) -> float:
    """Two-sided p-value of Student's t; 1 for a single seed, which can tell nothing.

    Args:
        difference: A mean of paired differences.

    Returns:
        Chance of a mean at least as far from zero, were the true one zero.
    """
    from scipy.special import stdtr

    if difference.n < 2 or difference.value == 0.0:
        return 1.0
    if difference.error == 0.0:
        return 0.0
    return float(2 * stdtr(difference.n - 1, -abs(difference.value / difference.error)))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Correct p-values for how many there are.

    Args:
        values: p-values by name.

    Returns:
        The chance, for each, that it or one of the smaller ones is this small where nothing
        differs.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'c': 0.06, 'b': 0.06}

    Source:
        Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statist. 6.
    """
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(values, key=lambda name: values[name])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[name]))
        corrected[name] = largest
    return corrected


def deviation(difference: Mean, overlap: float = 0.0) -> float:
    """Deviation of a paired difference from seed to seed, right in the median.

    The sample deviation of few seeds is mostly too small; this one lies above the true one as often
    as below it, for normal differences.

    Args:
        difference: A mean of at least two differences.
        overlap: What it was computed with.

    Returns:
        The deviation.
    """
    from scipy.special import chdtri

    freedom = difference.n - 1
    sample = difference.error / math.sqrt(1 / difference.n + overlap)
    return float(sample * math.sqrt(freedom / chdtri(freedom, 0.5)))


def detected(
    difference: float, spread: float, seeds: int, *, level: float = LEVEL, overlap: float = 0.0
) -> float:
    """Chance that a paired t-test tells a true difference from zero.

    Args:
        difference: The true difference.
        spread: Its true deviation from seed to seed.
        seeds: How many there are, at least two.
        level: Chance of an alarm where there is no difference.
        overlap: As for :func:`flatmin.compare.statistics.mean`.

    Returns:
        The power of the test.
    """
    from scipy.special import ndtr, stdtrit

    if spread == 0.0:
        return float(difference != 0.0)
    freedom = seeds - 1
    shift = abs(difference) / (spread * math.sqrt(1 / seeds + overlap))
    edge = stdtrit(freedom, 1 - level / 2) * _samples(freedom)
    return float(_WEIGHTS @ (ndtr(shift - edge) + ndtr(-shift - edge)))


@lru_cache(maxsize=512)
def _samples(freedom: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Quantiles of the sample deviation: scipy's noncentral t is NaN for few seeds."""
    from scipy.special import chdtri

    return np.asarray(np.sqrt(chdtri(freedom, 0.5 + _CHANCES) / freedom))


def seeds_for(
    difference: float, spread: float, *, level: float = LEVEL, overlap: float = 0.0
) -> int | None:
    """The fewest seeds that tell a true difference with a chance of 80 %.

    Args:
        difference: The true difference, not zero.
        spread: Its deviation from seed to seed.
        level: As for :func:`detected`.
        overlap: As for :func:`detected`.

    Returns:
        Their number; None where ten thousand would not do.

    Example:
        A difference of one deviation takes ten pairs (Cohen 1988).

        >>> seeds_for(1.0, 1.0)
        10
    """

    def enough(seeds: int) -> bool:
        return detected(difference, spread, seeds, level=level, overlap=overlap) >= POWER

    high = 2
    while not enough(high):
        high *= 2
        if high > _MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def detectable(
    spread: float, seeds: int, *, level: float = LEVEL, overlap: float = 0.0
) -> float | None:
    """The least true difference that so many seeds tell with a chance of 80 %.

    Args:
        spread: Deviation from seed to seed.
        seeds: How many there are.
        level: As for :func:`detected`.
        overlap: As for :func:`detected`.

    Returns:
        The minimum detectable difference; None for a single seed.
    """
    if seeds < 2:
        return None
    low, high = 0.0, spread * math.sqrt(1 / seeds + overlap)
    while spread and detected(high, spread, seeds, level=level, overlap=overlap) < POWER:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        far = detected(middle, spread, seeds, level=level, overlap=overlap) >= POWER
        low, high = (low, middle) if far else (middle, high)
    return high
