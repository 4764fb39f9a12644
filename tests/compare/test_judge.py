"""Differences decide, or say how many seeds would."""

from __future__ import annotations

from typing import Any

import pytest

from flatmin.compare.judge import answer, differences, number, usual_worth, verdict


def rows(values: dict[str, list[float | None]], **options: Any) -> list[dict[str, Any]]:
    """Differences of all arms from the base at equal epochs."""
    references = {name: {"epochs": "base"} for name in values if name != "base"}
    return differences(values, references, **{"larger": True, "worth": 0.5, **options})


BASE: list[float | None] = [90.0, 91.0, 92.0, 90.5, 91.5]


def plus(*gains: float | None) -> list[float | None]:
    """The base with something added seed by seed."""
    return [None if g is None else (b or 0.0) + g for b, g in zip(BASE, gains, strict=True)]


def test_a_gain_by_hand() -> None:
    (row,) = rows({"base": BASE, "sam": plus(0.7, 0.9, 0.8, 0.8, 0.8)})
    assert row["each"] == pytest.approx([0.7, 0.9, 0.8, 0.8, 0.8])
    assert row["value"] == pytest.approx(0.8)
    # s = √0.005, t(4) = 2.776
    assert row["high"] - row["value"] == pytest.approx(2.776445 * (0.005 / 5) ** 0.5)
    assert row["verdict"] == "helps" and "more" not in row
    assert answer([row], "points", 0.5) == "sam helps by 0.8 [0.7, 0.9] points at equal epochs."


def test_where_the_smaller_metric_is_better_signs_are_turned() -> None:
    (row,) = rows({"base": BASE, "sam": plus(-0.7, -0.9, -0.8, -0.8, -0.8)}, larger=False)
    assert row["value"] == pytest.approx(0.8) and row["verdict"] == "helps"


def test_holm_takes_back_what_several_arms_would_find_by_luck() -> None:
    one = {"base": BASE, "a": plus(0.1, 1.2, 0.3, 0.9, 0.4)}
    assert rows(one)[0]["verdict"] == "helps"
    many = {**one, **{name: plus(0.9, -0.9, 0.1, -0.2, 0.2) for name in "bcdef"}}
    found = {row["arm"]: row for row in rows(many)}
    assert found["a"]["p"] == pytest.approx(6 * rows(one)[0]["p"])
    assert found["a"]["verdict"] == "undecided"


def test_an_answer_for_each_verdict() -> None:
    small = rows({"base": BASE, "sam": plus(0.1, -0.1, 0.0, 0.1, -0.05)})
    assert answer(small, "points", 0.5) == (
        "sam does not help at equal epochs (less than 0.5 points either way)."
    )
    worse = rows({"base": BASE, "sam": plus(0.0, -0.9, -1.8, -0.3, -0.2)})
    assert answer(worse, "points", 0.5).endswith("epochs (less than 0.5 points).")
    hurt = rows({"base": BASE, "sam": plus(-0.7, -0.9, -0.8, -0.8, -0.8)})
    assert answer(hurt, "points", 0.5).startswith("sam hurts by 0.8 [0.7, 0.9] points")
    (wide,) = rows({"base": BASE, "sam": plus(1.0, -1.0, 0.5, 0.8, -0.6)})
    assert wide["verdict"] == "undecided"
    assert f"about {wide['more']} more seeds would tell a difference of 0.5 points" in answer(
        [wide], "points", 0.5
    )
    (one,) = differences(
        {"base": [1.0], "sam": [2.0]}, {"sam": {"epochs": "base"}}, larger=True, worth=0.5
    )
    assert answer([one], "", 0.5) == "sam is undecided at equal epochs (one seed)."


def test_a_run_that_diverged_decides_nothing() -> None:
    (row,) = rows({"base": BASE, "sam": plus(0.7, 0.9, 0.8, 0.8, None)})
    assert row["lost"] == 1 and row["verdict"] == "undecided"
    assert answer([row], "points", 0.5) == "sam is undecided at equal epochs (1 run diverged)."


def test_few_seeds_that_agree_to_the_last_digit_decide_nothing() -> None:
    """Accuracy on a small test part has few values: two that are equal are no proof."""
    for seeds, said in ((2, "undecided"), (4, "undecided"), (5, "no")):
        values = {"base": BASE[:seeds], "sam": BASE[:seeds]}
        (row,) = rows(values)
        assert row["verdict"] == said
    (row,) = rows({"base": BASE[:2], "sam": BASE[:2]})
    assert (
        answer([row], "", 0.5) == "sam is undecided at equal epochs (all seeds alike, and too few)."
    )


def test_differences_that_rounding_alone_tells_apart_are_alike() -> None:
    """100 · 0.56 − 54 is 2.000000000000007, and 54 − 52 is 2."""
    for seeds, said in ((2, "undecided"), (3, "undecided"), (5, "helps")):
        gains = [2.0 + 7e-15 * (seed % 2) for seed in range(seeds)]
        sam = [(b or 0.0) + gain for b, gain in zip(BASE, gains, strict=False)]
        (row,) = rows({"base": BASE[:seeds], "sam": list(sam)})
        assert row["verdict"] == said and row["low"] == row["high"] == pytest.approx(2.0)
    (row,) = rows({"base": [0.3, 0.6] * 3, "sam": [0.1 + 0.2, 0.6] * 3})
    assert row["value"] == 0.0 and row["verdict"] == "no"
    # A difference that is small and no rounding still tells.
    (row,) = rows({"base": BASE, "sam": plus(1e-6, 2e-6, 1e-6, 2e-6, 1e-6)})
    assert row["verdict"] == "helps"


def test_values_that_no_seed_changes_decide_nothing() -> None:
    """A loop that ignores its seed gives one run many times: an interval without width."""
    (row,) = rows({"base": [0.44] * 6, "sam": [0.42] * 6})
    assert row["verdict"] == "undecided" and "more" not in row
    assert answer([row], "", 0.5) == (
        "sam is undecided at equal epochs "
        "(each arm is the same for every seed, as if seeds were not used)."
    )
    (same,) = rows({"base": [1.0] * 6, "sam": [1.0] * 6})
    assert answer([same], "", 0.5).endswith("as if seeds were not used).")
    (same,) = rows({"base": BASE, "sam": BASE})
    assert same["verdict"] == "no"  # seed by seed the same, and not every seed
    (row,) = rows({"base": BASE, "sam": plus(2.0, 2.0, 2.0, 2.0, 2.0)})
    assert row["verdict"] == "helps"


def test_other_costs_follow_in_the_same_sentence() -> None:
    values = {"base": BASE, "base × 2": plus(0.8, 0.8, 0.8, 0.75, 0.8)}
    values["sam"] = plus(0.7, 0.9, 0.8, 0.8, 0.8)
    references = {"sam": {"epochs": "base", "gradients": "base × 2", "seconds": "base"}}
    found = differences(values, references, larger=True, worth=0.5)
    # The base at equal seconds is that at equal epochs: there is nothing more to say.
    assert [row["at"] for row in found] == ["epochs", "gradients"]
    assert answer(found, "points", 0.5) == (
        "sam helps by 0.8 [0.7, 0.9] points at equal epochs, and not at equal gradients."
    )


def test_the_seeds_that_would_tell_are_more_than_there_are() -> None:
    gains = [0.6, -0.2, 0.5, 0.1, 0.3]
    for worth in (0.1, 0.5, 5.0):
        (row,) = rows({"base": BASE, "sam": plus(*gains)}, worth=worth)
        assert row["verdict"] == ("no" if worth == 5.0 else "undecided")
        assert worth == 5.0 or row["more"] >= 1


def test_what_matters_and_how_it_is_written() -> None:
    assert usual_worth("points", [90.0]) == 0.5
    assert usual_worth("", [2.0, None, 4.0]) == pytest.approx(0.03)
    assert [number(1.2345, worth) for worth in (5.0, 0.5, 0.03, 0.004)] == [
        "1.2",
        "1.2",
        "1.23",
        "1.234",
    ]
    one = {"lost": 0, "seeds": 5, "p": 0.05, "value": -1.0, "low": -2.0, "high": -0.1}
    one |= {"constant": False}
    assert verdict(one, 0.5) == "hurts"
    assert verdict({**one, "p": 0.06}, 0.5) == "no"
    assert verdict({**one, "p": 0.06, "high": 0.5}, 0.5) == "undecided"


def test_what_was_said_is_not_said_again() -> None:
    row = {"arm": "sam", "value": -0.8, "low": -1.3, "high": -0.3, "seeds": 5, "lost": 0}
    row |= {"constant": False}
    epochs, seconds = {**row, "at": "epochs"}, {**row, "at": "seconds"}
    assert answer([{**r, "verdict": "hurts"} for r in (epochs, seconds)], "points", 0.5) == (
        "sam hurts by 0.8 [0.3, 1.3] points at equal epochs, "
        "and by 0.8 [0.3, 1.3] points at equal seconds."
    )
    open_ = [{**r, "verdict": "undecided", "more": 7, "told": 0.5} for r in (epochs, seconds)]
    assert answer(open_, "", 0.5) == (
        "sam is undecided at equal epochs (about 7 more seeds would tell a difference of 0.5), "
        "and at equal seconds (about 7 more seeds would tell a difference of 0.5)."
    )
