"""The page on invariance: its statistics, a small version of it, and the numbers as published."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import kendalltau

from flatmin.experiments import discover
from flatmin.experiments.scaling._rescaled_copies import (
    fooled_measures,
    invariant_measures,
    kendall,
    rescaled,
    spread_of,
    toy_network,
    wide_network,
)
from flatmin.experiments.scaling.ext_invariance import QUICK
from flatmin.record.page import publish
from flatmin.record.store import read_record, run_item

pytestmark = pytest.mark.slow  # trains, if briefly

STORED = Path(__file__).parents[3] / "docs" / "results" / "ext_invariance.json"
SMALL = replace(
    QUICK, seeds=2, scalings=10, every=5, steps=2, copies=1, points=40, wide_scalings=3,
    wide_examples=2,
)  # fmt: skip


def test_kendall_by_hand_and_beside_scipy() -> None:
    assert kendall([1, 2, 3], [10, 20, 30]) == 1.0
    assert kendall([1, 2, 3], [3, 2, 1]) == -1.0
    assert kendall([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall([1, 1], [2, 2]) == 0.0
    generator = random.Random(0)
    for _ in range(5):
        a, b = ([generator.randrange(8) for _ in range(12)] for _ in range(2))
        assert kendall(a, b) == pytest.approx(kendalltau(a, b).statistic)
    assert kendall([1.0, math.inf, 2.0], [1.0, 3.0, 2.0]) == 1.0


def test_spread_by_hand() -> None:
    assert spread_of([1.0, 3.0]) == 1.0
    assert spread_of([-1.0, -3.0]) == 1.0
    assert spread_of([2.0, 2.0]) == 0.0


def test_one_network_keeps_its_measures_and_its_negatives_move() -> None:
    toy = toy_network(0, steps=60, points=40, variance=5.0, dtype=torch.float64)
    states = [*rescaled(toy, 20, 0)][::10]
    for name, measure in invariant_measures(0.2, steps=2, samples=2).items():
        assert spread_of([measure.of(toy, w) for w in states]) <= measure.double, name
    for name, measure in fooled_measures(0.2, 0.5).items():
        assert spread_of([measure.of(toy, w) for w in states]) >= 0.5, name


def test_the_wide_network_learns_and_stays_the_same_for_a_seed() -> None:
    (first, images, labels), (second, *_) = (
        wide_network(0, epochs=1, examples=4) for _ in range(2)
    )
    assert not first.training and images.dtype == torch.float64
    assert (images.shape, labels.shape) == ((4, 1, 8, 8), (4,))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_small_version_runs_draws_and_judges(tmp_path: Path) -> None:
    item = discover()["ext_invariance"]
    run_item(item, SMALL, "QUICK", tmp_path)
    record = read_record(item, tmp_path)
    assert record is not None
    verdicts = publish(item, record, tmp_path)
    exact = [
        v for v in verdicts if v.claim.startswith(("Rescaling", "The measures", "The same in"))
    ]
    assert [verdict.measured for verdict in exact if not verdict.holds] == []
    assert len(exact) == 5
    assert (tmp_path / "ext_invariance.png").exists()


def test_options_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="scalings must be a multiple of every"):
        replace(QUICK, scalings=7, every=2)


def published() -> dict[str, Any]:
    if not STORED.exists():
        pytest.skip("ext_invariance.json is not published yet")
    record: dict[str, Any] = json.loads(STORED.read_text())
    assert record["mode"] == "FULL" and record["config"]["seeds"] >= 20
    assert record["config"]["scalings"] == 50 and record["config"]["every"] == 1
    return record["numbers"]


def test_published_spreads_keep_their_numbers() -> None:
    numbers = published()
    for dtype, spreads in numbers["spreads"].items():
        for name, bound in numbers["bounds"].items():
            assert max(spreads[name]) <= bound[dtype], (name, dtype)
    for net in numbers["wide"]:
        for mode in net.values():
            assert max(s for n, s in mode["spreads"].items() if n != "SAM rise") <= 1e-9
            assert mode["spreads"]["SAM rise"] >= 0.1


def test_published_negatives_keep_their_numbers() -> None:
    numbers = published()
    ratios = {name: sorted(r) for name, r in numbers["ratios"].items()}
    assert ratios["SAM loss"][len(ratios["SAM loss"]) // 2] >= 50
    assert ratios["published ASAM loss"][len(ratios["SAM loss"]) // 2] >= 5
    assert min(numbers["spreads"]["float64"]["filter-wise rise"]) >= 1


def test_published_rankings_keep_their_numbers() -> None:
    numbers = published()
    assert all(min(taus) == 1.0 for taus in numbers["kendall"].values())
    for name in ("SAM rise", "published ASAM rise"):
        last = sorted(orbit[-1] for orbit in numbers["kendall_fooled"][name])
        assert abs(last[len(last) // 2]) <= 0.3
