"""The SAM loss of a network over positive scalings.

Claim: Positive scalings, which leave the function of the network alone, have a dramatic effect on
its SAM loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.experiments.scaling._walk import (
    median,
    middle,
    range_of,
    ratio,
    rounded,
    scaling_walk,
    spread,
)
from flatmin.record.blocks import written
from flatmin.record.item import Verdict
from flatmin.record.progress import progress
from flatmin.record.style import COLORS, FAINT, INK, letter, subplots
from flatmin.scale import Identity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = 20


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
    """Radius of the ball, in parameter units."""


FULL = Config()
QUICK = Config(seeds=20)


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Follow L(w + ε), with and without biases in the network and in the scaling."""
    curves, own, losses = [], [], []
    ratios: dict[str, list[float]] = {"no biases": [], "biases scaled too": []}
    for seed in progress(range(config.seeds), "fig3: seeds"):
        for name in ratios:
            loss, worst = scaling_walk(
                seed,
                steps=config.steps,
                points=config.points,
                variance=config.variance,
                hidden_biases=name != "no biases",
            ).climb(config.rho, Identity())
            ratios[name].append(ratio(worst))
            if name == "no biases":
                curves.append(rounded(worst))
                own.append(spread(loss))
                losses.append(loss[0].item())
    shown = middle(ratios["no biases"])
    return {
        "curves": curves[:DRAWN],
        "median_curve": curves[shown],
        "median_seed": shown,
        "ratios": ratios,
        "median_loss": losses[shown],
        "loss_spreads": own,
    }


def draw(record: dict[str, Any]) -> Figure:
    """The curves, and the ratio of largest to smallest for every network."""
    numbers = record["numbers"]
    figure, axes = subplots(1, 2, width=10, height=4.0, width_ratios=[1.5, 1])
    left, right = axes[0]
    for line in numbers["curves"]:
        left.plot(line, color=COLORS["SAM"], lw=0.8, alpha=0.3)
    left.plot(numbers["median_curve"], color=COLORS["SAM"], lw=2.2, label="the median network")
    left.plot([], [], color=COLORS["SAM"], lw=0.8, alpha=0.5, label="other networks")
    left.axhline(
        numbers["median_loss"], color=INK, lw=1, ls=":", label="its loss L(w), which stays"
    )
    left.set_yscale("log")
    left.set(
        xlabel="scalings", ylabel="SAM loss L(w + ε)", title="The function stays, this does not"
    )
    left.legend(loc="upper left")
    for (name, values), marker in zip(numbers["ratios"].items(), "os", strict=True):
        share = [(place + 0.5) / len(values) for place in range(len(values))]
        right.plot(
            sorted(values),
            share,
            marker,
            ms=3.5,
            color=COLORS["SAM"] if marker == "o" else FAINT,
            label=f"{name}: median {median(values):.0f}",
        )
    right.set_xscale("log")
    right.set(
        xlabel="largest / smallest SAM loss of a network",
        ylabel="share of networks below",
        title="By how much, for each network",
        ylim=(0, 1.25),
        yticks=[0, 0.25, 0.5, 0.75, 1],
    )
    right.legend(loc="upper left", handletextpad=0.2)
    letter(axes[0])
    return figure


def answer(record: dict[str, Any]) -> str:
    """By how much SAM's loss moves while the function stays."""
    values = record["numbers"]["ratios"]
    plain, biased = (median(values[name]) for name in ("no biases", "biases scaled too"))
    return (
        "Rescaling, which leaves the function as it is, moves SAM's loss "
        f"{plain:.0f}-fold in the median of {record['config']['seeds']} networks, and "
        f"{biased:.0f}-fold where they have biases, which are scaled too."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """By a factor of fifty or more in the median network."""
    values = record["numbers"]["ratios"]
    seeds = record["config"]["seeds"]
    return [
        Verdict(
            "Positive scalings have a dramatic effect on the SAM loss",
            "one network, shown",
            f"largest / smallest: {range_of(values['no biases'])} over {seeds} networks; the loss "
            f"itself moves by {written(max(record['numbers']['loss_spreads']), 1)}",
            median(values["no biases"]) >= 50,
        ),
        Verdict(
            "So they have where networks and scalings include biases",
            "not shown",
            f"largest / smallest: {range_of(values['biases scaled too'])}",
            median(values["biases scaled too"]) >= 50,
            own=True,
        ),
    ]


def notes(record: dict[str, Any]) -> list[str]:
    """How to read it."""
    config = record["config"]
    return [
        f"SAM asks for the loss at the edge of a round ball of radius {config['rho']:g}. After "
        "some scalings a part of the weights is small and another large; the ball is as wide for "
        "both, and the same step of the same length then does quite different things to the same "
        "function.",
        *_sampling(record),
    ]


def _sampling(record: dict[str, Any]) -> list[str]:
    """How much the median depends on the choice of networks."""
    values = record["numbers"]["ratios"]["no biases"]
    groups = [median(values[i : i + 20]) for i in range(0, len(values) - 19, 20)]
    if len(groups) < 2:
        return []
    return [
        "The median of so skewed a quantity depends on the choice of networks: over groups of 20 "
        f"seeds it lies between {min(groups):.0f} and {max(groups):.0f} here."
    ]
