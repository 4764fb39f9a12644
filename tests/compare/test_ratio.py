"""Shares of a gain: limits, Fieller's own definition, coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from flatmin.compare.ratio import share


def test_the_ends_are_where_a_t_test_begins_to_tell() -> None:
    """Fieller's definition, with the t-test of SciPy."""
    a, b = [2.1, 3.0, 2.4, 2.7], [4.2, 5.1, 4.0, 5.6]
    found = share(a, b, [0.0] * 4)
    assert found.value == pytest.approx(np.mean(a) / np.mean(b), rel=1e-14)
    for end in (found.low, found.high):
        differences = [x - end * y for x, y in zip(a, b, strict=True)]
        assert stats.ttest_1samp(differences, 0.0).pvalue == pytest.approx(0.05, abs=1e-9)


def test_a_part_that_is_the_same_for_all_has_no_width() -> None:
    base, whole = [50.0, 51.0, 49.5], [60.0, 63.0, 58.0]
    half = [(x + y) / 2 for x, y in zip(base, whole, strict=True)]
    found = share(half, whole, base)
    assert (found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.5))
    assert str(found) == "50% [50%, 50%]"


@pytest.mark.parametrize("whole", [[1.0, -1.0, 0.5], [3.0, math.nan, math.nan]])
def test_no_interval_where_there_is_no_clear_gain_or_one_seed(whole: list[float]) -> None:
    known = [None if math.isnan(value) else value for value in whole]
    found = share([0.2, 0.4, 0.3], known, [0.0, 0.0, 0.0])
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert "no interval" in str(found)


def test_nothing_is_left_of_nothing() -> None:
    assert str(share([None], [1.0], [0.0])) == "–"


def test_intervals_cover_in_95_of_100() -> None:
    """2,000 draws with a true share of 0.8; four deviations of the count are allowed."""
    chance = np.random.default_rng(0)
    held = 0
    for _ in range(2_000):
        base = chance.normal(50.0, 1.0, 5)
        whole = base + chance.normal(5.0, 0.8, 5)
        one = base + 0.8 * (whole - base) + chance.normal(0.0, 0.5, 5)
        found = share(one.tolist(), whole.tolist(), base.tolist())
        held += found.low <= 0.8 <= found.high
    assert abs(held - 1_900) <= 4 * math.sqrt(2_000 * 0.95 * 0.05)
