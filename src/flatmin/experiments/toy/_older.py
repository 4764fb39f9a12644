"""Records that were stored before bands were taken from the seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from flatmin.experiments.toy._bands import bonferroni
from flatmin.experiments.toy._criterion import NAMES

BEFORE = (
    "**An older record.** It was made before bands were taken from the seeds, and has none: those "
    "shown are Bonferroni's over all comparisons of a row, which are wider. In its error rates a "
    "network with equal outputs everywhere counts as always wrong instead of half, which makes "
    "those of SAM at one radius too high. Computed with `--force` it is made anew."
)


def has_bands(record: dict[str, Any]) -> bool:
    """Whether the record was stored with bands."""
    every = record["numbers"]["comparisons"].values()
    return all("widening" in comparison for found in every for comparison in found.values())


def with_bands(record: dict[str, Any]) -> dict[str, Any]:
    """The record, with bands where it was stored without."""
    comparisons = {
        setting: {measure: _banded(c, record["config"]["seeds"]) for measure, c in found.items()}
        for setting, found in record["numbers"]["comparisons"].items()
    }
    return {**record, "numbers": {**record["numbers"], "comparisons": comparisons}}


def _banded(comparison: dict[str, Any], seeds: int) -> dict[str, Any]:
    """A comparison with bands; a stored one from before there were any gets Bonferroni's."""
    if "widening" in comparison:
        return comparison
    pairs = comparison["pairs"].items()
    halves = {pair: np.array(stored["half_width"], dtype=float) for pair, stored in pairs}
    rows, tests = next(iter(halves.values())).shape
    wider = bonferroni(rows, seeds, tests * len(halves))
    best = np.array(comparison["best"])
    clear = np.ones_like(best, dtype=bool)
    for pair, stored in pairs:
        mean = np.array(stored["mean"], dtype=float)
        decided = np.abs(mean) > halves[pair] * np.array(wider)[:, :1]
        one, other = (NAMES.index(name) for name in pair.split(" − "))
        clear &= decided | ((best != one) & (best != other))
    return {**comparison, "widening": wider, "clear": clear.astype(int).tolist()}
