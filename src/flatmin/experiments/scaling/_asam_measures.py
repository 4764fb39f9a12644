"""The measures of figure 4 by name, and what is kept of each over the scalings of a network."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from flatmin.experiments.scaling._walk import ratio, rounded, spread
from flatmin.scale import Elementwise, Identity, Scale

# Networks, and scales T on them; a record names a measure by both, with a bar between.
PLAIN, BIASED = "no biases", "biases scaled too"
PUBLISHED, ZERO = "ASAM, eta 0.01", "ASAM, eta 0"
BOTH, EXACT = "T = |w| + 0.01 on all", "T = |w| on all"
FLOAT32 = f"{BIASED}, float32"

# Which scale on which networks; the published ASAM is 0.01 and False.
MEASURES: dict[str, dict[str, Scale]] = {
    PLAIN: {
        "SAM": Identity(),
        PUBLISHED: Elementwise(0.01, biases=False),
        ZERO: Elementwise(0.0, biases=False),
    },
    BIASED: {
        "SAM": Identity(),
        PUBLISHED: Elementwise(0.01, biases=False),
        ZERO: Elementwise(0.0, biases=False),
        BOTH: Elementwise(0.01, biases=True),
        EXACT: Elementwise(0.0, biases=True),
    },
    FLOAT32: {EXACT: Elementwise(0.0, biases=True)},
}

DRAWN = 20


def empty() -> dict[str, list[Any]]:
    """A place for a measure: ratios and spreads by network, and how often a rise was negative."""
    return {"loss_ratio": [], "rise_ratio": [], "loss_spread": [], "rise_spread": [], "below": []}


def of_one_sign(kept: dict[str, list[Any]]) -> list[float]:
    """Largest over smallest rise, of the networks whose rise does not cross zero.

    Where it does, its smallest size is wherever a step happened to land: the ratio says nothing.
    """
    pairs = zip(kept["rise_ratio"], kept["below"], strict=True)
    return [ratio for ratio, below in pairs if not below] or [math.nan]


def note(kept: dict[str, list[Any]], loss: Tensor, worst: Tensor) -> None:
    """Note one network: its loss, and that at the worst point, over the scalings."""
    kept["loss_ratio"].append(ratio(worst))
    kept["rise_ratio"].append(ratio(worst - loss))
    kept["loss_spread"].append(spread(worst))
    kept["rise_spread"].append(spread(worst - loss))
    kept["below"].append(int((worst < loss).sum()))


def summed_up(kept: dict[str, list[Any]], shown: int, with_curves: bool) -> dict[str, Any]:
    """Scalars of every network, quantiles over networks at each step, and some curves."""
    losses, rises = kept.pop("losses"), kept.pop("rises")
    values = torch.tensor(rises, dtype=torch.float64)
    relative = values / values[:, :1]
    levels = {"low": 0.1, "median": 0.5, "high": 0.9}
    summary: dict[str, Any] = {
        **kept,
        "relative_rise": {n: rounded(relative.quantile(q, dim=0)) for n, q in levels.items()},
    }
    if with_curves:
        summary["losses"] = {"median": losses[shown], "some": losses[:DRAWN]}
        summary["rises"] = {"median": rises[shown], "some": rises[:DRAWN]}
    return summary
