"""The report's settings with SGD alone beside them: what is compared, and what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flatmin.experiments import discover
from flatmin.experiments.images import ext_sgd
from flatmin.experiments.images._study import REPORTED
from flatmin.record.page import publish
from flatmin.record.store import read_record, run_item


def record(**points: float) -> dict[str, Any]:
    """Arms with so many percent at the best epoch, one less at the last."""

    def arm(level: float) -> dict[str, Any]:
        best = [level + wobble for wobble in (-0.1, 0.0, 0.1)]
        last = [value - 1.0 for value in best]
        return {"best": best, "last": last, "train": last}

    arms = {name: arm(points[name]) for name in ("Adam", "SAM", "ASAM", "SGD")}
    return {"numbers": {"arms": arms, "source": "CIFAR-10"}, "config": {}}


def test_sgd_is_what_is_inside_sam_and_asam() -> None:
    for name in ("SAM", "ASAM"):
        special = {key: ext_sgd.ARMS[name][key] for key in ("minimizer", "rho")}
        assert {**ext_sgd.ARMS["SGD"], **special}.items() <= ext_sgd.ARMS[name].items()
    assert not {"minimizer", "rho", "eta"} & ext_sgd.ARMS["SGD"].keys()
    assert REPORTED.items() <= ext_sgd.ARMS.items()


@pytest.mark.parametrize(
    ("points", "holds"),
    [
        ({"Adam": 90.0, "SGD": 94.0, "SAM": 95.0, "ASAM": 93.0}, [True, True, False]),
        ({"Adam": 90.0, "SGD": 89.0, "SAM": 89.0, "ASAM": 95.0}, [False, None, True]),
    ],
)
def test_the_base_and_what_is_added_are_judged_apart(
    points: dict[str, float], holds: list[bool | None]
) -> None:
    found = record(**points)
    verdicts = ext_sgd.check(found)
    assert [verdict.holds for verdict in verdicts] == holds
    assert all(verdict.own for verdict in verdicts)
    side = "ahead of" if holds[0] else "behind"
    assert f"SGD is {side} Adam" in ext_sgd.answer(found)


def test_the_table_has_the_last_epoch_and_the_best() -> None:
    (table,) = ext_sgd.tables(record(Adam=90.0, SGD=94.0, SAM=95.0, ASAM=93.0))
    rows = {row[0]: row for row in table.rows}
    assert list(rows) == ["Adam", "SGD", "SAM", "ASAM"]
    assert rows["SAM"][1].startswith("95.00") and rows["SAM"][2].startswith("94.00")
    assert rows["SAM"][4].startswith("+5.00") and rows["SAM"][5].startswith("+1.00")
    assert rows["Adam"][4] == rows["SGD"][5] == ""


@pytest.mark.slow
def test_it_runs_and_is_published(tmp_path: Path) -> None:
    item = discover()["ext_sgd"]
    tiny = replace(ext_sgd.QUICK, images=30, test_images=20, epochs=1, evaluate_train=20, seeds=1)
    run_item(item, tiny, "QUICK", tmp_path)
    found = read_record(item, tmp_path)
    assert found is not None
    assert len(list((tmp_path / "runs").glob("*.json"))) == 4
    assert all(verdict.holds is None for verdict in publish(item, found, tmp_path))
    page = (tmp_path / "ext_sgd.md").read_text()
    assert "on digits, which say nothing of CIFAR" in page
    assert "validation" not in page  # nothing is chosen
