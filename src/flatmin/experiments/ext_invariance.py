"""Measures of sharpness that rescaling cannot fool, on trained networks.

Claim: With T = |w| on weights and biases and eta = 0, every measure of sharpness gives a trained
network and its rescaled copies the same number, while SAM's and the published ASAM's change by
orders of magnitude and no longer rank networks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flatmin.experiments._blocks import written
from flatmin.experiments._files import read_json, write_atomically
from flatmin.experiments._harness import Table, Verdict
from flatmin.experiments._invariance_panels import panels
from flatmin.experiments._progress import progress
from flatmin.experiments._rescaled_copies import (
    Measure,
    fooled_measures,
    invariant_measures,
    kendall,
    orbit_with_buffers,
    rescaled,
    spread_of,
    toy_network,
    wide_network,
)
from flatmin.experiments._scaling_walk import median, range_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DTYPES = {"float64": torch.float64, "float32": torch.float32}
MODES = {
    "eval": "running statistics, rescaled too",
    "train": "batch statistics, eps → 0",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Trained networks, each rescaled again and again: one orbit a network."""

    seeds: int = 24
    """Number of toy networks, each with its own start, points and factors."""
    scalings: int = 50
    """Scalings of all hidden units by U[0.5, 1.5], each on top of the one before."""
    every: int = 1
    """Every how many scalings the toy networks are measured."""
    epochs: int = 60
    """Steps of Adam on all points, from a random start."""
    points: int = 200
    """Points that are learnt and measured on, divisible by 4."""
    variance: float = 5.0
    """Variance of the points."""
    rho: float = 0.2
    """Radius of the ball, dimensionless."""
    sam_rho: float = 0.5
    """Radius for the losses of SAM and of published ASAM, as in figures 3 and 4."""
    steps: int = 10
    """Trial points of a climb to the worst case."""
    samples: int = 5
    """Random points of an average, random vectors of a trace; the same for all copies."""
    copies: int = 20
    """Independent orbits on which the ranking of the measures that are fooled is compared."""
    wide_seeds: int = 2
    """Number of WRN-10-1 on digits."""
    wide_scalings: int = 50
    """Their scalings."""
    wide_epochs: int = 3
    """Passes over the digits."""
    wide_examples: int = 16
    """Digits that are measured on."""

    def __post_init__(self) -> None:
        if self.scalings < 1 or self.scalings % self.every or self.wide_scalings < 1:
            raise ValueError(
                "scalings must be a multiple of every, and wide_scalings at least 1, got "
                f"{self.scalings}, {self.every} and {self.wide_scalings}."
            )


FULL = Config()
QUICK = Config(
    seeds=8,
    every=10,
    steps=3,
    samples=2,
    copies=4,
    wide_seeds=1,
    wide_scalings=5,
    wide_epochs=1,
    wide_examples=8,
)


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Measure every network, and every copy of it."""
    exact = invariant_measures(config.rho, steps=config.steps, samples=config.samples)
    fooled = fooled_measures(config.rho, config.sam_rho)
    values: dict[str, list[dict[str, list[float]]]] = {}
    for dtype in DTYPES:
        measures = exact | (fooled if dtype == "float64" else {})
        values[dtype] = [
            _kept(scratch / f"{dtype}-{seed}.json", lambda: _orbit(config, seed, dtype, measures))  # noqa: B023
            for seed in progress(range(config.seeds), f"ext_invariance: toy networks, {dtype}")
        ]
    copies = [
        _kept(scratch / f"copies-{seed}.json", lambda: _copies(config, seed, fooled))  # noqa: B023
        for seed in progress(range(config.seeds), "ext_invariance: copies")
    ]
    wide = [
        _kept(scratch / f"wide-{seed}.json", lambda: _wide(config, seed))  # noqa: B023
        for seed in progress(range(config.wide_seeds), "ext_invariance: WRN-10-1")
    ]
    double = values["float64"]
    return {
        "bounds": {name: {"float64": m.double, "float32": m.single} for name, m in exact.items()},
        "spreads": {
            dtype: {name: [spread_of(net[name]) for net in nets] for name in nets[0]}
            for dtype, nets in values.items()
        },
        "ratios": {
            name: [max(map(abs, net[name])) / min(map(abs, net[name])) for net in double]
            for name in fooled
        },
        "kendall": {
            name: [
                kendall([net[name][0] for net in double], [net[name][k] for net in double])
                for k in range(config.scalings // config.every + 1)
            ]
            for name in exact
        },
        "after": list(range(0, config.scalings + 1, config.every)),
        "marks": _marks(config),
        # [copies][marks]
        "kendall_fooled": {
            name: [
                [
                    kendall([net[name][0] for net in double], [net[name][c][k] for net in copies])
                    for k in range(len(_marks(config)))
                ]
                for c in range(config.copies)
            ]
            for name in fooled
        },
        "before_and_after": {
            name: [[net[name][0], net[name][-1]] for net in double]
            for name in ("SAM rise", "published ASAM rise", "worst case, p = 2")
        },
        "wide": wide,
    }


def draw(record: dict[str, Any]) -> Figure:
    """The spreads, the ranking, the networks themselves, and a network with BatchNorm."""
    return panels(record["numbers"], MODES)


def check(record: dict[str, Any]) -> list[Verdict]:
    """The bounds that rounding allows, and the measures that must not stay."""
    numbers, config = record["numbers"], record["config"]
    spreads, bounds, ratios = numbers["spreads"], numbers["bounds"], numbers["ratios"]
    verdicts = [
        Verdict(
            f"Rescaling weights and biases leaves every measure as it is, in {dtype}",
            "a measure that is invariant for both is left as future work",
            f"(max − min) / |mean| over {config['scalings']} scalings of {config['seeds']} "
            f"networks: at most {written(max(max(spreads[dtype][name]) for name in bounds), 1)}",
            all(max(spreads[dtype][name]) <= bound[dtype] for name, bound in bounds.items()),
        )
        for dtype in DTYPES
    ]
    fooled = numbers["kendall_fooled"]
    after = {name: [orbit[-1] for orbit in fooled[name]] for name in fooled}
    return [
        *verdicts,
        Verdict(
            "The same scalings change the SAM loss and, with biases, the ASAM loss",
            "figure 3; stated for biases",
            f"largest / smallest: SAM {range_of(ratios['SAM loss'])}, "
            f"published ASAM {range_of(ratios['published ASAM loss'])}",
            median(ratios["SAM loss"]) >= 50 and median(ratios["published ASAM loss"]) >= 5,
        ),
        Verdict(
            "Scaling by filters does not help",
            "not asked",
            "(max − min) / |mean| of the filter-wise rise: "
            f"{range_of(spreads['float64']['filter-wise rise'])}",
            min(spreads["float64"]["filter-wise rise"]) >= 1,
        ),
        Verdict(
            "The measures rank networks and their rescaled copies alike",
            "not asked",
            f"Kendall's τ is at least {min(map(min, numbers['kendall'].values())):.3f} for each "
            "measure, after any number of scalings",
            min(map(min, numbers["kendall"].values())) == 1.0,
        ),
        Verdict(
            "SAM and published ASAM do not: the ranking is lost",
            "not asked",
            f"τ after {config['scalings']} scalings, over {config['copies']} orbits: "
            f"SAM {range_of(after['SAM rise'])}, published ASAM "
            f"{range_of(after['published ASAM rise'])}",
            all(abs(median(after[name])) <= 0.3 for name in ("SAM rise", "published ASAM rise")),
        ),
        *(_wide_verdict(numbers, mode) for mode in MODES),
    ]


def tables(record: dict[str, Any]) -> list[Table]:
    """Every measure in both precisions; those that are fooled; the network with BatchNorm."""
    numbers = record["numbers"]
    spreads = numbers["spreads"]
    rows = [
        (name, *(part for d in DTYPES for part in (range_of(spreads[d][name]), bound[d])))
        for name, bound in numbers["bounds"].items()
    ]
    return [
        Table(
            "T = |w|: (max − min) / |mean| over the scalings; median and range over networks",
            ("measure", "float64", "allowed", "float32", "allowed"),
            rows,
        ),
        Table(
            "Other T on the same orbits, float64",
            ("measure", "(max − min) / |mean|", "largest / smallest size", "τ after the last"),
            [
                (
                    name,
                    range_of(spreads["float64"][name]),
                    range_of(ratios),
                    range_of([orbit[-1] for orbit in numbers["kendall_fooled"][name]]),
                )
                for name, ratios in numbers["ratios"].items()
            ],
        ),
        Table(
            "WRN-10-1 on digits: largest (max − min) / |mean|",
            ("measure", *MODES.values()),
            [
                (
                    name,
                    *(max(net[mode]["spreads"][name] for net in numbers["wide"]) for mode in MODES),
                )
                for name in numbers["wide"][0]["eval"]["spreads"]
            ],
        ),
    ]


def notes(record: dict[str, Any]) -> list[str]:
    """What is compared, why it holds, and where it ends."""
    numbers, n = record["numbers"], max(record["config"]["seeds"], 2)
    residual = median([orbit[-1] for orbit in numbers["kendall_fooled"]["SAM rise"]])
    return [
        "**What is compared.** Trained networks, the report's perceptron with its biases, and "
        "copies of them that compute the same function: every hidden unit is scaled by U[0.5, "
        "1.5] where it is made, its bias included, and by the inverse where it is read, again and "
        "again. Whatever a measure says about a copy, it should say about the network.",
        "**Why it holds.** A scaling A takes w to Aw, and T = |w| to AT. So the ball of w goes "
        "over into the ball of Aw point by point, and the loss there is the same. A climb, a "
        "random point, a gradient and a Hessian in the coordinates of the ball are the same too: "
        "one argument for all measures. What is left is rounding.",
        "**Ranking.** Which of two networks is flatter, is what one wants to know. SAM's measure "
        "and published ASAM's mix the answer with the sizes of the weights, which training leaves "
        "to chance. Their τ falls to what chance gives, 0 with a deviation of "
        f"{written(math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))), 2)} for {n} networks. A little "
        f"may stay (SAM: {written(residual, 2)} in the median of the orbits), for a sharper "
        "function gives larger values at any scale.",
        "**BatchNorm.** In eval mode the running statistics belong to the function: `rescale` "
        "moves them with the weights, and var + eps is what it scales, so that eps does no harm. "
        "With batch statistics only a normalization without eps undoes a scale exactly; with the "
        "usual 1e-5, `find_scalings` does not offer these units.",
        "**Where it ends.** Invariance says what a measure does not depend on. Whether it predicts "
        "generalization is another question, and the answer changes from one setting to the next "
        "(Andriushchenko et al. 2023, arXiv:2302.07011).",
    ]


def _marks(config: Config) -> list[int]:
    """After how many scalings the ranking of independent copies is compared."""
    return [k for k in (1, 2, 5, 10, 20, 35) if k < config.scalings] + [config.scalings]


def _orbit(
    config: Config, seed: int, dtype: str, measures: dict[str, Measure]
) -> dict[str, list[float]]:
    objective = _network(config, seed, dtype)
    states = list(rescaled(objective, config.scalings, seed))[:: config.every]
    return {name: [m.of(objective, w) for w in states] for name, m in measures.items()}


def _copies(
    config: Config, seed: int, measures: dict[str, Measure]
) -> dict[str, list[list[float]]]:
    """Values on independent orbits, [copies][marks]."""
    objective = _network(config, seed, "float64")
    found: dict[str, list[list[float]]] = {name: [] for name in measures}
    for copy in range(config.copies):
        states = list(rescaled(objective, config.scalings, 1000 * (copy + 1) + seed))
        for name, m in measures.items():
            found[name].append([m.of(objective, states[k]) for k in _marks(config)])
    return found


def _network(config: Config, seed: int, dtype: str) -> Any:
    return toy_network(
        seed,
        steps=config.epochs,
        points=config.points,
        variance=config.variance,
        dtype=DTYPES[dtype],
    )


def _wide(config: Config, seed: int) -> dict[str, dict[str, Any]]:
    model, images, labels = wide_network(
        seed, epochs=config.wide_epochs, examples=config.wide_examples
    )
    measures = invariant_measures(
        config.rho,
        steps=config.steps // 2,
        samples=max(2, config.samples // 2),
        tolerance=1e-3,
    )
    measures["SAM rise"] = fooled_measures(config.rho, config.sam_rho / 10)["SAM rise"]
    found: dict[str, dict[str, Any]] = {}
    for mode in MODES:
        model.train(mode == "train")
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and mode == "train":
                module.eps = 1e-300  # torch asks for more than zero; no sum notices this
        values, moved = orbit_with_buffers(
            model, images, labels, measures, count=config.wide_scalings, seed=seed
        )
        found[mode] = {
            "spreads": {name: spread_of(column) for name, column in values.items()},
            "deviation": moved,
        }
    return found


def _wide_verdict(numbers: dict[str, Any], mode: str) -> Verdict:
    nets = [net[mode] for net in numbers["wide"]]
    exact = [s for net in nets for name, s in net["spreads"].items() if name != "SAM rise"]
    sam = [net["spreads"]["SAM rise"] for net in nets]
    return Verdict(
        f"The same in a wide residual network with BatchNorm: {MODES[mode]}",
        "not asked",
        f"(max − min) / |mean| at most {written(max(exact), 1)} for every measure, while SAM's "
        f"rise has {range_of(sam)}; outputs moved by at most "
        f"{written(max(net['deviation'] for net in nets), 1)} of their rms",
        max(exact) <= 1e-9 and min(sam) >= 0.1,
    )


def _kept(file: Path, compute: Callable[[], Any]) -> Any:
    """A finished part, from before the interruption or from now."""
    if read_json(file) is None:
        write_atomically(file, json.dumps(compute()))
    return read_json(file)
