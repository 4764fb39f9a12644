"""The very simple network with the report's settings: what is compared, and what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flatmin.experiments import discover
from flatmin.experiments.images import ext_own_size, ext_simple_model
from flatmin.experiments.images._comparison import TWICE
from flatmin.record.page import publish
from flatmin.record.store import read_record, run_item


def record(**points: float) -> dict[str, Any]:
    """Three starts; where SAM is lucky, the others are not."""
    arms = {
        {"Twice": TWICE}.get(name, name): {
            "last": [level + sign * wobble for wobble in (-0.1, 0.0, 0.1)]
        }
        for name, level in points.items()
        for sign in [-1 if name == "SAM" else 1]
    }
    numbers = {"arms": arms, "source": "CIFAR-10", "train_images": 50_000}
    return {"numbers": numbers, "config": {"epochs": 200}}


def test_it_is_the_reports_size() -> None:
    full = ext_own_size.FULL
    assert (full.model, full.epochs, full.images, full.test_images) == ("cnn", 200, None, None)
    assert full.epochs == ext_own_size.EPOCHS == ext_simple_model.FULL.epochs


@pytest.mark.parametrize(
    ("points", "holds"),
    [
        ({"Adam": 72.0, "SAM": 70.0, "ASAM": 71.0, "Twice": 72.5}, [True, True]),
        ({"Adam": 72.0, "SAM": 74.0, "ASAM": 71.0, "Twice": 75.0}, [False, True]),
        ({"Adam": 72.0, "SAM": 72.45, "ASAM": 71.0, "Twice": 72.0}, [None, None]),
    ],
)
def test_no_gain_is_shown_by_intervals(points: dict[str, float], holds: list[bool | None]) -> None:
    found = record(**points)
    verdicts = ext_own_size.check(found)
    assert [verdict.holds for verdict in verdicts] == holds
    assert [verdict.own for verdict in verdicts] == [False, True]
    side = "ahead of" if points["SAM"] > points["Adam"] + 1 else ""
    assert side in ext_own_size.answer(found)


@pytest.mark.slow
def test_it_runs_and_is_published(tmp_path: Path) -> None:
    item = discover()["ext_own_size"]
    tiny = replace(ext_own_size.QUICK, images=30, test_images=20, epochs=1, evaluate_train=20)
    run_item(item, replace(tiny, seeds=1), "QUICK", tmp_path)
    found = read_record(item, tmp_path)
    assert found is not None
    assert len(list((tmp_path / "runs").glob("*.json"))) == 3
    assert all(verdict.holds is None for verdict in publish(item, found, tmp_path))
    page = (tmp_path / "ext_own_size.md").read_text()
    assert "on digits, which say nothing of CIFAR" in page and "Smaller than the report's" in page
