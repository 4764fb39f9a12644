"""Power, seeds and Holm's correction are those of tables and of another library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from flatmin.compare.power import (
    detectable,
    detected,
    deviation,
    holm,
    p_value,
    seeds_for,
)
from flatmin.compare.statistics import mean


def test_p_values_are_those_of_scipy() -> None:
    values = [0.3, 1.2, -0.4, 0.9, 1.0]
    assert p_value(mean(values)) == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue, rel=1e-12)
    assert p_value(mean([1.0])) == 1.0  # one seed tells nothing
    assert p_value(mean([1.0, 1.0])) == 0.0
    assert p_value(mean([0.0, 0.0])) == 1.0


def test_power_is_that_of_the_noncentral_distribution() -> None:
    for seeds, shift in ((4, 1.0), (10, 1.0), (25, 0.3)):
        nct, edge = stats.nct(seeds - 1, shift * math.sqrt(seeds)), stats.t.ppf(0.975, seeds - 1)
        exact = nct.sf(edge) + nct.cdf(-edge)
        assert detected(shift, 1.0, seeds) == pytest.approx(exact, abs=1e-5)
    assert detected(0.0, 1.0, 7) == pytest.approx(0.05, abs=1e-4)
    assert detected(1.0, 0.0, 2) == 1.0


def test_seeds_and_detectable_difference_are_inverse() -> None:
    # Cohen 1988: 34 pairs for half a deviation, 199 for a fifth.
    assert [seeds_for(d, 1.0) for d in (0.5, 0.2)] == [34, 199]
    assert seeds_for(0.001, 1.0) is None
    for seeds in (2, 3, 8, 40):
        least = detectable(2.0, seeds)
        assert least is not None
        assert detected(least, 2.0, seeds) == pytest.approx(0.8, abs=1e-6)
        assert seeds_for(least * 1.0001, 2.0) == seeds
    assert detectable(2.0, 1) is None
    assert detectable(0.0, 5) == 0.0


def test_splits_that_overlap_leave_a_difference_that_no_number_of_seeds_tells() -> None:
    assert seeds_for(0.5, 1.0, overlap=0.25) is None
    assert seeds_for(2.0, 1.0, overlap=0.25) is not None
    apart, together = mean([1.0, 2.0, 4.0]), mean([1.0, 2.0, 4.0], overlap=0.25)
    # s² (1/3 + 1/4) in place of s²/3
    assert together.error == pytest.approx(apart.error * math.sqrt((1 / 3 + 1 / 4) * 3))


def test_holm_by_hand() -> None:
    found = holm({"a": 0.04, "b": 0.01, "c": 0.02, "d": 0.9})
    expected = {"b": 0.04, "c": 0.06, "a": 0.08, "d": 0.9}
    assert list(found) == list(expected)
    assert list(found.values()) == pytest.approx(list(expected.values()))
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


def test_the_deviation_is_right_in_the_median() -> None:
    source = np.random.default_rng(0)
    found = [deviation(mean(source.normal(size=4).tolist())) for _ in range(4000)]
    assert np.median(found) == pytest.approx(1.0, abs=0.03)  # 4 000 draws: 3 standard errors
