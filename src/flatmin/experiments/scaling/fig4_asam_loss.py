"""The ASAM loss of a network over positive scalings, and a measure that stays.

Claim: The ASAM loss remains practically constant under positive scalings of the weights, but varies
where biases are scaled too; a measure that is invariant for both is left as future work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flatmin.experiments.scaling._asam_measures import (
    BIASED,
    EXACT,
    FLOAT32,
    MEASURES,
    PLAIN,
    PUBLISHED,
    ZERO,
    empty,
    note,
    of_one_sign,
    summed_up,
)
from flatmin.experiments.scaling._asam_panels import panels
from flatmin.experiments.scaling._asam_tables import tables
from flatmin.experiments.scaling._walk import (
    Walk,
    median,
    middle,
    range_of,
    rotated,
    rounded,
    scaling_walk,
)
from flatmin.record.blocks import written
from flatmin.record.item import Verdict
from flatmin.record.progress import progress
from flatmin.scale import Elementwise

__all__ = ["FULL", "QUICK", "Config", "check", "draw", "finding", "notes", "run", "tables"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Config:
    """Untrained toy networks, scaled again and again."""

    seeds: int = 100
    """Number of networks, each with its own points and factors."""
    steps: int = 50
    """Scalings, each on top of the one before."""
    points: int = 452
    """Points of the loss: 450 in the report, made a multiple of 4."""
    variance: float = 2.0
    """Variance of the points."""
    rho: float = 0.5
    """Radius of the ball: dimensionless for ASAM, in parameter units for SAM."""
    etas: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12)
    """Values of eta to compare, on networks without biases."""


REPORTED = 1.44  # largest over smallest loss of the report's one network: 1.02 / 0.71

FULL = Config()
QUICK = Config(seeds=10)


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Follow L(w + ε) and the rise L(w + ε) − L(w) under every measure."""
    results: dict[str, dict[str, list[Any]]] = {}
    sweep: dict[str, dict[str, list[float]]] = {f"{eta:g}": empty() for eta in config.etas}
    turned: dict[str, list[float]] = empty()
    for seed in progress(range(config.seeds), "fig4: seeds"):
        walks = {name: _walk(config, seed, name) for name in MEASURES}
        for name, scales in MEASURES.items():
            for measure, scale in scales.items():
                kept = results.setdefault(
                    f"{measure} | {name}", {**empty(), "losses": [], "rises": []}
                )
                loss, worst = walks[name].climb(config.rho, scale)
                note(kept, loss, worst)
                kept["losses"].append(rounded(worst))
                kept["rises"].append(rounded(worst - loss))
        for eta in config.etas:
            scale = Elementwise(eta, biases=False)
            note(sweep[f"{eta:g}"], *walks[PLAIN].climb(config.rho, scale))
        rotations = rotated(walks[PLAIN], config.steps + 1, seed)
        note(turned, *rotations.climb(config.rho, Elementwise()))
    published = f"{PUBLISHED} | {PLAIN}"
    shown = middle(results[published]["loss_ratio"])
    return {
        "measures": {
            name: summed_up(kept, shown, name == published) for name, kept in results.items()
        },
        "etas": sweep,
        "rotations": turned,
    }


def draw(record: dict[str, Any]) -> Figure:
    """The report's figure, the rise in it, the part of eta, the biases, and all in one."""
    return panels(record["numbers"])


def finding(record: dict[str, Any]) -> str:
    """How far a rescaling moves SAM's loss, ASAM's, and what a ball of T = |w| finds."""
    measures = record["numbers"]["measures"]
    sam, asam, biased = (
        written(median(measures[key]["loss_ratio"]), 3)
        for key in (f"SAM | {PLAIN}", f"{PUBLISHED} | {PLAIN}", f"{PUBLISHED} | {BIASED}")
    )
    least = written(max(measures[f"{EXACT} | {BIASED}"]["rise_spread"]), 1)
    return (
        f"Rescaling a network, which changes none of its outputs, moves SAM's loss {sam}-fold in "
        f"the median and ASAM's {asam}-fold ({biased}-fold with biases), and what is measured "
        f"relative to every weight and bias by at most {least} of itself."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """The claim, what is true of it, and the future work."""
    numbers = record["numbers"]
    measures, seeds = numbers["measures"], record["config"]["seeds"]
    published = measures[f"{PUBLISHED} | {PLAIN}"]
    zero = measures[f"{ZERO} | {PLAIN}"]
    biased = measures[f"{PUBLISHED} | {BIASED}"]
    biased_zero = measures[f"{ZERO} | {BIASED}"]
    exact, exact32 = measures[f"{EXACT} | {BIASED}"], measures[f"{EXACT} | {FLOAT32}"]
    loss, rise = (
        median([line[0] for line in published[key]["some"]]) for key in ("losses", "rises")
    )
    return [
        Verdict(
            "The ASAM loss remains practically constant: by as little as there, in the median",
            "one network without biases: 0.71 → 1.02, largest / smallest 1.44",
            f"largest / smallest: {range_of(published['loss_ratio'])} over {seeds} networks",
            median(published["loss_ratio"]) <= REPORTED,
        ),
        Verdict(
            "The ASAM loss remains practically constant: by as little as there, in every network",
            "one network without biases: 0.71 → 1.02, largest / smallest 1.44",
            f"in {sum(r > REPORTED for r in published['loss_ratio'])} of {seeds} networks it moves "
            "by more",
            max(published["loss_ratio"]) <= REPORTED,
        ),
        Verdict(
            "The adaptive sharpness, the rise in that loss, is independent of positive scalings",
            "conclusion",
            f"of a loss L(w + ε) of {loss:.2f} at the start the rise is {rise:.3f}; largest / "
            f"smallest rise: {range_of(of_one_sign(published))} in networks whose rise keeps its "
            f"sign; in {sum(map(bool, published['below']))} of {seeds} it does not",
            median(of_one_sign(published)) <= 1.05,
        ),
        Verdict(
            "What moves it is eta alone: with eta = 0 the loss is constant",
            "not asked",
            f"largest / smallest: at most 1 + {written(max(zero['loss_ratio']) - 1, 1)}",
            max(zero["loss_ratio"]) <= 1 + 1e-12,
            own=True,
        ),
        Verdict(
            "With biases in the network and in the scaling, the ASAM loss varies dramatically",
            "stated",
            f"largest / smallest: {range_of(biased['loss_ratio'])}; with eta = 0 "
            f"{range_of(biased_zero['loss_ratio'])}, so here the cause is T = 1 on the biases",
            median(biased["loss_ratio"]) >= 5,
        ),
        Verdict(
            "There is a measure that is invariant for weights and biases: T = |w| on both, eta = 0",
            "left as future work",
            "(max − min) / mean of the rise: at most "
            f"{written(max(exact['rise_spread']), 1)} in float64, "
            f"{written(max(exact32['rise_spread']), 1)} in float32",
            max(exact["rise_spread"]) <= 1e-9,
            own=True,
        ),
        Verdict(
            "This measure is invariant under every symmetry of this network",
            "not asked",
            "no activation follows the first layer, so its units may be rotated too; then the "
            f"spread of the rise is {range_of(numbers['rotations']['rise_spread'])}",
            max(numbers["rotations"]["rise_spread"]) <= 1e-9,
            own=True,
        ),
    ]


def notes(record: dict[str, Any]) -> list[str]:
    """The report's claim, what is true of it, and its future work."""
    exact = record["numbers"]["measures"][f"{EXACT} | {BIASED}"]
    return [
        "**The claim.** ASAM asks for the loss at the worst point of a ball that is as wide in "
        "each direction as the weight is large. Scale a unit, and the ball is scaled with it: the "
        "worst point moves along, and the loss there stays. So the report finds in its figure 4, "
        "which is our (a).",
        "**What is true of it.** Two things are in the way. The plotted loss is the loss itself, "
        "which cannot change, plus a small rise, and the rise alone, (b), is anything but "
        "constant. And the ball is not |w| wide but |w| + eta: fifty scalings make many weights "
        "smaller than 0.01, and for these the ball is eta. In (c) the drift follows eta, and ends "
        "with it.",
        "**The biases.** Published ASAM has T = 1 on every bias. Scale a unit with its bias, and "
        "the ball does not follow: (d), green. Nor can the biases be left out of the scaling, for "
        "then the function changes; see fig2.",
        "**The future work, done.** Let T = |w| on weights and biases alike, and eta = 0. A "
        "scaling A takes the ball of w onto the ball of Aw, since T at Aw is A times T at w; and "
        "a loss that A leaves alone has the same largest value on both. Purple in (d) and (e): "
        f"the rise stays the same to {written(max(exact['rise_spread']), 1)}, which is rounding. "
        "This T is the default of `flatmin.Elementwise`, and meant for measuring.",
        "**What it does not do.** It knows scalings, not every symmetry: rotate the units behind "
        "the first layer, which no activation follows, and it moves. A weight that is exactly "
        "zero has no room in its ball. And an invariant measure is not yet a predictor of "
        "generalization: whether sharpness predicts anything changes from one setting to the "
        "next (Andriushchenko et al. 2023, arXiv:2302.07011).",
    ]


def _walk(config: Config, seed: int, networks: str) -> Walk:
    return scaling_walk(
        seed,
        steps=config.steps,
        points=config.points,
        variance=config.variance,
        hidden_biases=networks != PLAIN,
        dtype=torch.float32 if networks == FLOAT32 else torch.float64,
    )
