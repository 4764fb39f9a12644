"""A claim is decided by intervals, and an answer says by how much."""

from __future__ import annotations

from flatmin.compare.statistics import mean
from flatmin.compare.verdict import alike, compared, decided, no_gain, together


def test_a_claim_is_undecided_until_its_intervals_decide() -> None:
    up, down, open_ = mean([1.0, 1.1, 1.2]), mean([-1.0, -1.1, -1.2]), mean([-1.0, 1.0])
    assert together([up, up]) is True
    assert together([up, open_]) is None
    assert together([up, down]) is False
    assert no_gain([down, down]) is True
    assert no_gain([mean([0.4, 0.41, 0.42])]) is True  # less than half a point
    assert no_gain([down, open_]) is None
    assert no_gain([mean([-5.0])]) is None  # one seed says nothing
    assert no_gain([up, open_]) is False
    assert alike(open_) is None and alike(up) is False
    assert alike(mean([0.1, 0.11, 0.12])) is True


def test_an_answer_says_which_is_ahead_and_by_how_much() -> None:
    up, open_ = mean([1.0, 1.1, 1.2]), mean([-1.0, 1.0])
    assert compared("A", "B", up) == "A is ahead of B (+1.1 points, +0.9 to +1.3)"
    assert compared("A", "B", mean([-1.0, -1.1, -1.2])).startswith("A is behind B (-1.1 points")
    assert compared("A", "B", open_) == "A and B cannot be told apart (+0.0 points, -12.7 to +12.7)"
    assert compared("A", "B", mean([1.0])) == "A − B: +1.00 (one seed)"
    answers = [decided(holds, "yes", "no") for holds in (True, False, None)]
    assert answers == ["yes", "no", "These runs do not decide it"]
