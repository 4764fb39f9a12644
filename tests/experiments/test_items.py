"""The items without training: small versions run, draw and judge; FULL keeps its numbers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flatmin.experiments import discover
from flatmin.experiments.scaling._asam_measures import (
    BIASED,
    EXACT,
    FLOAT32,
    PLAIN,
    PUBLISHED,
    ZERO,
)
from flatmin.experiments.scaling._walk import median
from flatmin.record.page import item_page, publish
from flatmin.record.store import read_record, run_item

STORED = Path(__file__).parents[2] / "docs" / "results"
SMALL = {
    "fig1": {},
    "fig2": {"seeds": 2, "steps": 8, "points": 40},
    "fig3": {"seeds": 2, "steps": 8, "points": 40},
    "fig4": {"seeds": 2, "steps": 8, "points": 40, "etas": (0.01, 1e-6)},
    "fig6": {"points": 200},
    "table2": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_an_item_runs_draws_and_judges(name: str, tmp_path: Path) -> None:
    item = discover()[name]
    config = replace(item.load().QUICK, **SMALL[name])
    run_item(item, config, "QUICK", tmp_path)
    record = read_record(item, tmp_path)
    assert record is not None
    verdicts = publish(item, record, tmp_path)
    assert all(verdict.claim and verdict.measured for verdict in verdicts)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.{kind}" for kind in ("json", "md", "png", "svg")
    }
    assert (tmp_path / f"{name}.json").stat().st_size < 300_000


@pytest.mark.parametrize("name", ["fig1", "fig6", "table2"])
def test_what_needs_no_seeds_holds(name: str, tmp_path: Path) -> None:
    item = discover()[name]
    run_item(item, item.load().FULL, "FULL", tmp_path)
    record = read_record(item, tmp_path)
    assert record is not None
    assert all(verdict.holds for verdict in item.load().check(record))


def test_figure_1_is_the_gaussian_wells_by_hand(tmp_path: Path) -> None:
    item = discover()["fig1"]
    numbers = item.load().run(item.load().FULL, tmp_path)
    sharp, flat = numbers["minima"]["sharp"], numbers["minima"]["flat"]
    # 1 − exp(−x²/2s²) has curvature 1/s² at the bottom; the other well is 4.5 widths away.
    assert sharp["curvature"] == pytest.approx(16.0, rel=1e-2)
    assert flat["curvature"] == pytest.approx(1.0, rel=1e-2)
    assert sharp["rise"] == pytest.approx(0.6247, abs=1e-3)
    assert flat["rise"] == pytest.approx(0.0594, abs=1e-3)


def test_table_2_counts_the_parameters(tmp_path: Path) -> None:
    item = discover()["table2"]
    numbers = item.load().run(item.load().FULL, tmp_path)
    assert numbers["parameters"] == 370
    assert [row["weights"] for row in numbers["rows"]] == [20, 100, 0, 100, 0, 100, 0, 20]


SHOWN = [name for name in discover() if (STORED / f"{name}.json").exists()]


@pytest.mark.parametrize("name", SHOWN)
def test_published_pages_say_what_their_records_say(name: str) -> None:
    """If not: `flatmin report --out docs/results`."""
    item = discover()[name]
    record = read_record(item, STORED)
    assert record is not None
    assert (STORED / f"{name}.md").read_text() == item_page(item, record)
    said = (STORED / f"{name}.md").read_text().partition("**Answer.** ")[2].partition("\n")[0]
    assert re.search(r"\d", said)  # in plain words, with a number
    assert (STORED / f"{name}.png").exists()
    assert record["provenance"]["dirty"] is False


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_published_records_can_be_drawn(name: str, tmp_path: Path) -> None:
    item = discover()[name]
    record = read_record(item, STORED)
    assert record is not None
    publish(item, record, tmp_path)
    assert (STORED / f"{name}.md").read_text() == (tmp_path / f"{name}.md").read_text()
    for kind in ("png", "svg"):
        assert (tmp_path / f"{name}.{kind}").stat().st_size > 10_000


def stored(name: str) -> dict[str, Any]:
    path = STORED / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not published yet")
    record: dict[str, Any] = json.loads(path.read_text())
    assert record["mode"] == "FULL" and record["config"]["seeds"] >= 20
    return record["numbers"]


def test_published_figure_2_keeps_its_number() -> None:
    largest = stored("fig2")["largest"]
    assert max(largest["no biases, float64"] + largest["biases scaled too, float64"]) <= 1e-12
    assert max(largest["no biases, float32"] + largest["biases scaled too, float32"]) <= 5e-5
    assert median(largest["biases left unscaled, float64"]) >= 5  # no symmetry at all


def test_published_figure_3_keeps_its_number() -> None:
    for ratios in stored("fig3")["ratios"].values():
        assert median(ratios) >= 50
        assert median(ratios[:20]) >= 50


def test_published_figure_4_keeps_its_numbers() -> None:
    measures = stored("fig4")["measures"]
    for n in (20, 1000):
        published = measures[f"{PUBLISHED} | {PLAIN}"]["loss_ratio"][:n]
        assert 1.05 <= median(published) <= 2.5
        assert median(measures[f"{PUBLISHED} | {BIASED}"]["loss_ratio"][:n]) >= 5
        assert median(measures[f"{ZERO} | {BIASED}"]["loss_ratio"][:n]) >= 5
    assert max(measures[f"{ZERO} | {PLAIN}"]["loss_ratio"]) <= 1 + 1e-12
    assert max(measures[f"{EXACT} | {BIASED}"]["rise_spread"]) <= 1e-9
    assert max(measures[f"{EXACT} | {FLOAT32}"]["rise_spread"]) <= 1e-2
