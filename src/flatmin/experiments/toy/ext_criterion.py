"""Which of Adam, SAM and ASAM to choose, with the radius of each tuned.

Claim: Which optimizer generalizes best follows from the variances of training and test: Adam below
the training variance, ASAM around it, SAM far above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flatmin.experiments.toy._conditions import View
from flatmin.experiments.toy._criterion import (
    BEST_AT,
    MEASURES,
    NAMES,
    compare,
    regions,
    rounded,
    shares_in_words,
)
from flatmin.experiments.toy._maps import maps
from flatmin.experiments.toy._section2 import (
    adam_is_best_at_first,
    asam_is_best_around,
    sam_is_best_in_the_end,
)
from flatmin.experiments.toy._study import (
    ROUNDING,
    TEST_VARIANCES,
    Way,
    asam,
    labeled_points,
    sam,
    scores,
    test,
    train,
)
from flatmin.experiments.toy._verdicts import RULE, judged
from flatmin.record.item import Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAME, TUNED, EQUAL = "one radius for both", "radius tuned", "radius tuned, Adam twice as long"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Controlled training (figure 5) over a grid of radii, and Adam with as many gradients."""

    seeds: int = 20
    """Training sets of each variance; all optimizers share set, start and batches."""
    variances: tuple[float, ...] = (1.0, 5.0, 10.0, 15.0, 25.0, 30.0)
    """Variances of the training sets."""
    epochs: int = 200
    """Epochs; twice as many for Adam with as many gradients as SAM."""
    points: int = 2000
    """Points of each training, validation and test set."""
    radii: tuple[float, ...] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    """Radii to choose from, for SAM and for ASAM."""
    rho: float = 0.5
    """The report's radius, one of ``radii``."""


FULL = Config()
QUICK = Config(seeds=5, variances=(5.0, 15.0), epochs=10, points=1000, radii=(0.1, 0.5))


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Train with every radius, choose on validation sets of the training variance, then test."""
    if config.rho not in config.radii:
        raise ValueError(f"rho must be one of radii {config.radii}, got {config.rho}.")
    common: dict[str, Any] = {
        "variances": config.variances,
        "seeds": config.seeds,
        "points": config.points,
        "scratch": scratch,
    }
    radii = config.radii
    ways = [Way(None), *(Way(ball(rho)) for ball in (sam, asam) for rho in radii)]
    every = train(ways, **common, epochs=config.epochs, description="criterion: training")
    longer = train(
        [Way(None)], **common, epochs=2 * config.epochs, description="criterion: Adam for longer"
    )
    validation = _validation_losses(every.params, config)
    grids = {"SAM": validation[1 : 1 + len(radii)], "ASAM": validation[1 + len(radii) :]}
    chosen = {name: grid.argmin(dim=0) for name, grid in grids.items()}

    rows = torch.arange(len(config.variances))
    same = torch.full_like(rows, radii.index(config.rho))
    picked = [
        torch.zeros_like(rows),
        *(1 + at for at in (same, chosen["SAM"])),
        *(1 + len(radii) + at for at in (same, chosen["ASAM"])),
    ]
    tested = {
        name: torch.cat([torch.stack([p[w, rows] for w in picked]), longer.params[name]])
        for name, p in every.params.items()
    }
    comparisons: dict[str, Any] = {SAME: {}, TUNED: {}, EQUAL: {}}
    for measure, found in zip(
        MEASURES, test(tested, config.points, "criterion: testing"), strict=True
    ):
        adam, sam_same, sam_tuned, asam_same, asam_tuned, adam_longer = found
        comparisons[SAME][measure] = compare(_named(adam, sam_same, asam_same))
        comparisons[TUNED][measure] = compare(_named(adam, sam_tuned, asam_tuned))
        comparisons[EQUAL][measure] = compare(_named(adam_longer, sam_tuned, asam_tuned))
    return {
        "test_variances": TEST_VARIANCES.tolist(),
        "validation": {"Adam": rounded(validation[0])}
        | {name: rounded(grid) for name, grid in grids.items()},
        "chosen": {name: [radii[i] for i in at.tolist()] for name, at in chosen.items()},
        "comparisons": comparisons,
        "diverged": len(every.diverged) + len(longer.diverged),
    }


def draw(record: dict[str, Any]) -> Figure:
    """Maps of the best optimizer: by loss and by error rate, in three settings."""
    return maps(record)


def answer(record: dict[str, Any]) -> str:
    """How many of the criterion's sentences are left."""
    found = [verdict.holds for verdict in check(record)]
    return (
        f"With the radius of each tuned, {found.count(True)} of the criterion's {len(found)} "
        f"sentences hold, {found.count(False)} do not, and {found.count(None)} are undecided."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """The three parts of the criterion, by loss and by error rate."""
    numbers = record["numbers"]
    sentences = (
        ("below the training variance (at 1) Adam is best", adam_is_best_at_first),
        ("at the training variance ASAM is best", asam_is_best_around),
        ("far above the training variance (at 79.5) SAM is best", sam_is_best_in_the_end),
    )
    verdicts = []
    for measure in MEASURES:
        for setting in (TUNED, EQUAL):
            comparison = numbers["comparisons"][setting][measure]
            view = View(comparison, record["config"]["variances"], numbers["test_variances"])
            for claim, sentence in sentences:
                words, holds = judged(sentence, view)
                title = f"By {measure}, {setting}: {claim}"
                verdicts.append(Verdict(title, "one radius for both", words, holds, own=True))
    return verdicts


def tables(record: dict[str, Any]) -> list[Table]:
    """The map in words, and the choice of the radii."""
    numbers, config = record["numbers"], record["config"]
    variances, tested = config["variances"], numbers["test_variances"]
    words = [
        [setting, measure, variance, regions(comparison[measure], row, tested)]
        for setting, comparison in numbers["comparisons"].items()
        for measure in MEASURES
        for row, variance in enumerate(variances)
    ]
    validation = [
        [name, rho, *losses]
        for name in NAMES[1:]
        for rho, losses in zip(config["radii"], numbers["validation"][name], strict=True)
    ]
    return [
        Table(
            BEST_AT,
            ["setting", "measure", "trained at", "best"],
            words,
        ),
        Table(
            "Chosen radii, by training variance",
            ["optimizer", *(f"{variance:g}" for variance in variances)],
            [[name, *numbers["chosen"][name]] for name in NAMES[1:]],
        ),
        Table(
            f"Mean validation loss over {config['seeds']} seeds, by training variance",
            ["optimizer", "rho", *(f"{variance:g}" for variance in variances)],
            [["Adam", "–", *numbers["validation"]["Adam"]], *validation],
        ),
    ]


def notes(record: dict[str, Any]) -> list[str]:
    """The maps in a few words."""
    numbers = record["numbers"]
    return [
        "Share of the map on which an optimizer is best beyond doubt. "
        + " ".join(
            f"**By {measure}, {setting}:** {shares_in_words(comparison[measure])}."
            for measure in MEASURES
            for setting, comparison in numbers["comparisons"].items()
        ),
        "The radius of each optimizer is the one with the lowest mean validation loss at the "
        "training variance; no test set is used. Adam twice as long takes as many gradients as SAM "
        "and ASAM.",
        RULE,
        *_at_the_edge(numbers["chosen"], record["config"]),
        ROUNDING,
    ]


def _at_the_edge(chosen: dict[str, list[float]], config: dict[str, Any]) -> list[str]:
    """A sentence for each optimizer whose radius may lie beyond the grid."""
    edges = {min(config["radii"]), max(config["radii"])}
    found = {
        name: [f"{v:g}" for v, rho in zip(config["variances"], radii, strict=True) if rho in edges]
        for name, radii in chosen.items()
    }
    return [
        f"{name}'s radius lies at the edge of the grid, trained at {', '.join(where)}."
        for name, where in found.items()
        if where
    ]


def _named(*found: Tensor) -> dict[str, Tensor]:
    return dict(zip(NAMES, found, strict=True))


def _validation_losses(params: dict[str, Tensor], config: Config) -> Tensor:
    """Mean loss on other points of the training variance: ``[ways, variances]``."""
    inputs, targets = (
        t.flatten(0, 1)
        for t in labeled_points("validation", config.variances, config.seeds, config.points)
    )
    losses = [
        scores({name: p[way].flatten(0, 1) for name, p in params.items()}, inputs, targets)[0]
        for way in range(len(next(iter(params.values()))))
    ]
    return torch.stack(losses).reshape(-1, len(config.variances), config.seeds).mean(dim=2)
