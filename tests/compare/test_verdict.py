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
    assert alike([open_]) is None and alike([up]) is False
    assert alike([mean([0.1, 0.11, 0.12])]) is True
    assert alike([mean([0.1, 0.11, 0.12]), open_]) is None


def test_one_contrary_difference_of_many_has_to_be_so_at_a_shared_level() -> None:
    up = mean([1.0, 1.1, 1.2])
    border, clear = mean([-1.0, -0.3, -0.9, -0.4]), mean([-1.0, -0.8, -0.9, -0.7])
    # 3.2 standard errors are needed alone, 4.9 among three.
    assert 3.2 < -border.value / border.error < 4.9 < -clear.value / clear.error
    assert together([border]) is False and no_gain([mean([1.0, 0.3, 0.9, 0.4])]) is False
    assert together([up, up, border]) is None
    assert together([up, up, clear]) is False


def test_an_answer_says_which_is_ahead_and_by_how_much() -> None:
    up, open_ = mean([1.0, 1.1, 1.2]), mean([-1.0, 1.0])
    assert compared("A", "B", up) == "A is ahead of B (+1.1 points, +0.9 to +1.3)"
    assert compared("A", "B", mean([-1.0, -1.1, -1.2])).startswith("A is behind B (-1.1 points")
    assert compared("A", "B", open_) == "A and B cannot be told apart (+0.0 points, -12.7 to +12.7)"
    assert compared("A", "B", mean([1.0])) == "A − B: +1.00 (one seed)"
    answers = [decided(holds, "yes", "no") for holds in (True, False, None)]
    assert answers == ["yes", "no", "These runs do not decide it"]
