"""The study of cheap forms: what is tried, what is counted, what is said."""

from __future__ import annotations

import math
from typing import Any

import pytest

from flatmin.experiments import discover
from flatmin.experiments.images import ext_cost
from flatmin.experiments.images._forms import DECAY, FORMS, LENGTHS, LR, trials
from flatmin.train import TrainConfig


def test_every_form_is_a_configuration_and_has_as_many_trials() -> None:
    for form in FORMS:
        choices = trials(form, 8)
        assert len(choices) == 8
        for choice in choices:
            TrainConfig(model="mlp-2-8", **choice)
            assert ("rho" in choice) == (form.radii is not None)
    assert len({form.name for form in FORMS}) == len(FORMS)


def test_the_points_are_the_same_for_all_and_fill_their_ranges() -> None:
    """Of eight points of a Sobol sequence one lies in each eighth of every coordinate."""
    shared = [[(c["lr"], c["options"]) for c in trials(form, 8)] for form in FORMS]
    assert all(points == shared[0] for points in shared)
    for limits, values in (
        (LR, [lr for lr, _ in shared[0]]),
        (DECAY, [options["weight_decay"] for _, options in shared[0]]),
    ):
        low, high = map(math.log, limits)
        parts = sorted((math.log(value) - low) / (high - low) for value in values)
        for eighth, part in enumerate(parts):  # three digits are kept of each
            assert eighth / 8 - 0.002 <= part <= (eighth + 1) / 8 + 0.002


def record(last: dict[str, list[float]]) -> dict[str, Any]:
    """Numbers of a study whose accuracies are these; SGD's for the lengths that are not given."""
    forms = {
        form.name: {
            "last": last.get(form.name, last["SGD"]),
            "train": [99.0] * 3,
            "diverged": [None] * 3,
            "gradients": form.multiple if form.name in (*LENGTHS, "MSAM", "AsyncSAM") else 2.0,
            "seconds": 1.1 if form.name in ("MSAM", "AsyncSAM") else 2.0 * form.multiple,
        }
        for form in FORMS
    }
    search = {form.name: {"accuracy": [25.0, 5.0]} for form in FORMS}
    search |= {"SAM": {"accuracy": [20.0, 30.0]}, "ASAM": {"accuracy": [31.0, 10.0]}}
    numbers = {"forms": forms, "source": "CIFAR-10", "commits": ["a"], "search": search}
    return {"numbers": numbers, "config": {"trials": 8}}


BASE = [26.0, 27.0, 26.5]


def plus(points: float, *noise: float) -> list[float]:
    noise = noise or (0.0, 0.1, -0.1)
    return [value + points + more for value, more in zip(BASE, noise, strict=True)]


@pytest.mark.parametrize(
    ("msam", "holds"),
    [(plus(9.9), True), (plus(5.0), False), (plus(9.5, 1.0, -1.0, 0.0), None)],
)
def test_a_cheap_form_is_judged_by_its_interval(msam: list[float], holds: bool | None) -> None:
    found = record({"SGD": BASE, "ASAM": plus(10.0), "MSAM": msam})
    *controls, gradients, seconds = ext_cost.check(found)
    assert [verdict.holds for verdict in controls] == [True, True, True]
    assert gradients.holds is seconds.holds is holds
    assert "MSAM keeps most: " in ext_cost.answer(found)
    assert "MSAM keeps " in ext_cost.finding(found)


def test_without_a_gain_nothing_is_judged() -> None:
    found = record({"SGD": BASE, "ASAM": plus(0.0, 0.5, -0.5, 0.1), "MSAM": plus(0.1)})
    assert [v.holds for v in ext_cost.check(found) if "by heart" not in v.claim] == [None] * 4


def test_expensive_forms_are_no_answer() -> None:
    found = record({"SGD": BASE, "ASAM": plus(10.0)})
    for form in found["numbers"]["forms"].values():
        form["seconds"] = 3.0
    assert "no form takes at most 1.2 times SGD's seconds" in ext_cost.answer(found)
    assert ext_cost.check(found)[-1].measured == "none takes so little"


def test_the_whole_gain_is_chosen_without_the_test_set() -> None:
    found = record({"SGD": BASE, "ASAM": plus(1.0), "SAM": plus(10.0)})
    assert "ASAM gains +1.00" in ext_cost.answer(found)  # though SAM is better on the test set
    found["numbers"]["search"]["SAM"]["accuracy"] = [32.0]
    assert ext_cost.answer(found).startswith("SAM gains +10.00")


def test_sgd_counts_at_the_length_that_was_best_on_held_out_images() -> None:
    found = record({"SGD": BASE, "ASAM": plus(10.0), "SGD × 2": plus(3.0), "SGD × 1.5": plus(8.0)})
    found["numbers"]["search"]["SGD × 2"]["accuracy"] = [26.0]
    assert "ahead of SGD × 2, the best length" in ext_cost.answer(found)
    assert ext_cost.check(found)[1].measured.startswith("+7.00")


def test_lengths_are_those_of_sgd_alone() -> None:
    assert LENGTHS == ("SGD", "SGD × 1.2", "SGD × 1.5", "SGD × 2")
    assert [form.epochs(40) for form in FORMS[:4]] == [40, 48, 60, 80]


@pytest.mark.slow
def test_the_item_counts_gradients(tmp_path_factory: pytest.TempPathFactory) -> None:
    """To the unit: 20 steps of SGD, and what each form adds to them."""
    from dataclasses import replace

    from flatmin.record.store import read_record, run_item

    out = tmp_path_factory.mktemp("results")
    item = discover()["ext_cost"]
    tiny = {"images": 320, "epochs": 4, "evaluate_every": 4, "seeds": 1, "trials": 1}
    config = replace(ext_cost.QUICK, **tiny, test_images=20, evaluate_train=20, search_epochs=1)
    run_item(item, config, "QUICK", out)
    found = read_record(item, out)
    assert found is not None
    steps = 4 * math.ceil(320 / 128)
    counted = {name: form["gradients"] * steps for name, form in found["numbers"]["forms"].items()}
    late, later = steps - round(0.7 * steps), steps - round(0.8 * steps)
    assert counted == {
        "SGD": steps,
        "SGD × 1.2": 5 * 3,
        "SGD × 1.5": 6 * 3,
        "SGD × 2": 8 * 3,
        "SAM": 2 * steps,
        "ASAM": 2 * steps,
        "SAM, last 30 %": pytest.approx(steps + late, abs=1e-3),
        "ASAM, last 20 %": pytest.approx(steps + later, abs=1e-3),
        "ASAM, every 5th": pytest.approx(steps + math.ceil(steps / 5), abs=1e-3),
        "MSAM": steps,
        "AsyncSAM": steps,
        "SAM-ON": 2 * steps,
    }
