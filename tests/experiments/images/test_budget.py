"""The study of few epochs: what is compared with what, and what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flatmin.experiments import discover
from flatmin.experiments.images import ext_budget
from flatmin.record.page import publish
from flatmin.record.store import read_record, run_item

BASE = [40.0, 41.0, 42.0]


def level(noise: float, gains: dict[int, float], spread: float = 0.1) -> dict[str, Any]:
    """SAM and ASAM so many points above SGD at equal gradients, by length; 3 more at epochs."""

    def arm(points: float) -> dict[str, Any]:
        wobble = (-spread, 0.0, spread)
        last = [value + points + more for value, more in zip(BASE, wobble, strict=True)]
        return {"last": last, "train": last, "epochs": 1, "chosen": {}}

    lengths = [
        {
            "epochs": epochs,
            "arms": {
                "SGD": {**arm(0.0), "last": [value - 3 for value in BASE]},
                "SGD × 2": {**arm(0.0), "last": BASE},
                "SAM": arm(gain),
                "ASAM": arm(gain),
            },
        }
        for epochs, gain in gains.items()
    ]
    return {"noise": noise, "lengths": lengths}


def record(*levels: dict[str, Any]) -> dict[str, Any]:
    return {"numbers": {"levels": list(levels), "source": "CIFAR-10"}, "config": {}}


@pytest.mark.parametrize(
    ("gains", "holds"),
    [
        ({2: 4.0, 5: 2.0, 40: 1.0}, (True, True)),
        ({2: 4.0, 5: 2.0, 40: -9.0}, (True, True)),  # the whole length is no limit
        ({2: 4.0, 5: -1.0, 40: 1.0}, (True, False)),  # ahead for as many epochs, at twice the cost
        ({2: 4.0, 5: 0.0, 40: 1.0}, (True, None)),
    ],
)
def test_the_sentence_is_about_every_limited_length(
    gains: dict[int, float], holds: tuple[bool | None, bool | None]
) -> None:
    sam, asam, *_ = ext_budget.check(record(level(0.0, gains)))
    for verdict in (sam, asam):
        assert verdict.controlled is not None and not verdict.own
        assert (verdict.holds, verdict.controlled[1]) == holds
        assert verdict.controlled[0].startswith("2 epochs +4.00")
        assert "40 epochs" not in verdict.controlled[0]


def test_whether_shortness_does_it_and_the_control_are_questions_of_ours() -> None:
    found = record(level(0.0, {2: 4.0, 40: 1.0}), level(0.4, {2: 1.0, 40: 5.0}))
    _, _, *questions = ext_budget.check(found)
    assert [verdict.holds for verdict in questions] == [True, True, False, False, True]
    assert questions[0].measured == "+3.00 [+3.00, +3.00]"
    assert "With 40% of the labels wrong" in questions[2].claim
    assert questions[4].measured.startswith("SAM +8.00")  # at equal epochs
    assert all(verdict.own for verdict in questions)
    assert ext_budget.answer(found).startswith("With fewer epochs sharpness awareness is ahead")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": (0.5, 0.25)}, "parts must be shares of the epochs in increasing order"),
        ({"parts": (0.5, 1.5)}, "parts must be shares"),
        ({"trials": 0}, "must not be empty"),
        ({"noise": ()}, "must not be empty"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ext_budget.Config(**changes)


@pytest.mark.slow  # trains, if briefly
def test_every_arm_has_its_gradients_and_as_many_trials(tmp_path: Path) -> None:
    item = discover()["ext_budget"]
    tiny = replace(
        ext_budget.QUICK, model="mlp-2-8", images=66, test_images=20, evaluate_train=20, epochs=2,
        evaluate_every=2, parts=(0.5, 1.0), noise=(0.0, 0.4), validation=30,
    )  # fmt: skip
    run_item(item, tiny, "QUICK", tmp_path)
    found = read_record(item, tmp_path)
    assert found is not None
    assert all(verdict.holds is None for verdict in publish(item, found, tmp_path))  # on digits
    for one in found["numbers"]["levels"]:
        for length, epochs in zip(one["lengths"], (1, 2), strict=True):
            assert [arm["epochs"] for arm in length["arms"].values()] == [
                epochs, 2 * epochs, epochs, epochs,
            ]  # fmt: skip
            assert all(len(arm["accuracy"]) == 2 for arm in length["arms"].values())
