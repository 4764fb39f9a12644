"""Means, paired differences and their intervals are those by hand and of the tables."""

from __future__ import annotations

import math

import pytest

from flatmin.compare.statistics import mean, paired, signed, t_quantile


def test_t_quantile() -> None:
    for freedom, tabulated in ((2, 4.303), (4, 2.776), (9, 2.262), (19, 2.093), (1000, 1.962)):
        assert t_quantile(freedom) == pytest.approx(tabulated, rel=5e-4)


def test_means_and_intervals_by_hand() -> None:
    found = mean([1.0, 2.0, None, 3.0])
    assert (found.value, found.n) == (2.0, 3)
    assert found.error == pytest.approx(1 / math.sqrt(3))
    assert found.half == pytest.approx(4.302652729749462 / math.sqrt(3))  # tables of t, 2 degrees
    assert found.sign == 0
    assert paired([5.0, 6.0, 7.0], [4.0, 5.0, 6.1]).sign == 1
    assert signed(paired([1.0, 2.0], [0.5, 1.0])) == "+0.75 [-2.43, +3.93]"
    assert t_quantile(1) == pytest.approx(12.706204736174694)
    one = mean([1.0])
    assert one.half == math.inf and one.sign == 0 and str(one) == "1.00 (one seed)"
    assert str(mean([None])) == "–"
