"""Measures of sharpness that rescaling cannot fool, on trained networks.

Claim: With T = |w| on weights and biases and eta = 0, every measure of sharpness gives a trained
network and its rescaled copies the same number, while SAM's and the published ASAM's change by
orders of magnitude and no longer rank networks.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.experiments.scaling._invariance_panels import panels
from flatmin.experiments.scaling._orbits import DTYPES, MODES, Config, measured
from flatmin.experiments.scaling._walk import median, range_of
from flatmin.record.blocks import written
from flatmin.record.item import Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    return measured(config, scratch)


def draw(record: dict[str, Any]) -> Figure:
    """The spreads, the ranking, the networks themselves, and a network with BatchNorm."""
    return panels(record["numbers"], MODES)


def answer(record: dict[str, Any]) -> str:
    """What stays, and what does not."""
    numbers = record["numbers"]
    worst = max(max(numbers["spreads"]["float64"][name]) for name in numbers["bounds"])
    sam, asam = (median(numbers["ratios"][f"{name} loss"]) for name in ("SAM", "published ASAM"))
    return (
        f"Rescaling {record['config']['seeds']} trained networks moves no measure in the ball of "
        f"T = |w| by more than {written(worst, 1)} of itself in float64; SAM's loss it moves "
        f"{sam:.0f}-fold in the median, and published ASAM's {asam:.0f}-fold."
    )


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
            own=True,
        )
        for dtype in DTYPES
    ]
    fooled = numbers["kendall_fooled"]
    after = {name: [orbit[-1] for orbit in fooled[name]] for name in fooled}
    return [
        *verdicts,
        Verdict(
            "The same scalings change the SAM loss of trained networks",
            "figure 3, untrained",
            f"largest / smallest: {range_of(ratios['SAM loss'])}",
            median(ratios["SAM loss"]) >= 50,
        ),
        Verdict(
            "With biases they change the published ASAM loss of trained networks",
            "stated, untrained",
            f"largest / smallest: {range_of(ratios['published ASAM loss'])}",
            median(ratios["published ASAM loss"]) >= 5,
        ),
        Verdict(
            "Scaling by filters does not help",
            "not asked",
            "(max − min) / |mean| of the filter-wise rise: "
            f"{range_of(spreads['float64']['filter-wise rise'])}",
            min(spreads["float64"]["filter-wise rise"]) >= 1,
            own=True,
        ),
        Verdict(
            "The measures rank networks and their rescaled copies alike",
            "not asked",
            f"Kendall's τ is at least {min(map(min, numbers['kendall'].values())):.3f} for each "
            "measure, after any number of scalings",
            min(map(min, numbers["kendall"].values())) == 1.0,
            own=True,
        ),
        Verdict(
            "SAM and published ASAM do not: the ranking is lost",
            "not asked",
            f"τ after {config['scalings']} scalings, over {config['copies']} orbits: "
            f"SAM {range_of(after['SAM rise'])}, published ASAM "
            f"{range_of(after['published ASAM rise'])}",
            all(abs(median(after[name])) <= 0.3 for name in ("SAM rise", "published ASAM rise")),
            own=True,
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
        "again. Whatever a measure says about a copy, it should say about the network. Balls are "
        "those of ‖ε / |w|‖ₚ for p = 1, 1.5, 2, 3 and ∞.",
        "**Why it holds.** A scaling A takes w to Aw, and T = |w| to AT. So the ball of w goes "
        "over into the ball of Aw point by point, and the loss there is the same. A climb, a "
        "random point, a gradient and a Hessian in the coordinates of the ball are the same too: "
        "one argument for all measures. What is left is rounding.",
        "**What rounding may do.** A step in the ball of p follows the power 1 / (p − 1) of the "
        "gradient. For 1 < p < 2 that multiplies relative errors, at p = 1.5 by two at each trial "
        "point of a climb, so what is allowed there is larger by two to the number of points. At "
        "first it was what is allowed at p = 2, and in float32 a network went beyond that: the "
        "table has the largest spread.",
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
        own=True,
    )
