"""The output of a network over positive scalings.

Claim: Positive scalings have no effect on the output of the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flatmin.experiments.scaling._walk import median, range_of, rounded, scaling_walk
from flatmin.record.blocks import written
from flatmin.record.item import Table, Verdict
from flatmin.record.progress import progress
from flatmin.record.style import COLORS, EXACT, band, letter, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Name: hidden biases, biases left unscaled, dtype.
WALKS = {
    "no biases, float64": (False, False, torch.float64),
    "no biases, float32": (False, False, torch.float32),
    "biases scaled too, float64": (True, False, torch.float64),
    "biases scaled too, float32": (True, False, torch.float32),
    "biases left unscaled, float64": (True, True, torch.float64),
}
_SHOWN = ("no biases, float64", "biases left unscaled, float64")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Untrained toy networks, scaled again and again."""

    seeds: int = 100
    """Number of networks, each with its own points and factors."""
    steps: int = 50
    """Scalings, each on top of the one before."""
    points: int = 452
    """Points over which deviations are taken: 450 in the report, made a multiple of 4."""
    variance: float = 2.0
    """Variance of the points."""
    shown: int = 8
    """Points whose logits are drawn."""


FULL = Config()
QUICK = Config(seeds=10)


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Follow the logits, and how far the farthest has moved, relative to their rms."""
    deviations: dict[str, list[list[float]]] = {name: [] for name in WALKS}
    logits = {}
    for seed in progress(range(config.seeds), "fig2: seeds"):
        for name, (hidden_biases, weights_only, dtype) in WALKS.items():
            outputs = scaling_walk(
                seed,
                steps=config.steps,
                points=config.points,
                variance=config.variance,
                hidden_biases=hidden_biases,
                weights_only=weights_only,
                dtype=dtype,
            ).outputs()
            deviations[name].append(_deviation(outputs).tolist())
            if seed == 0 and name in _SHOWN:
                chosen = torch.randperm(config.points, generator=torch.Generator().manual_seed(0))[
                    : config.shown
                ]
                logits[name] = [rounded(line) for line in outputs[:, chosen, 0].T]
    return {
        "logits": logits,
        "largest": {name: [max(steps) for steps in lines] for name, lines in deviations.items()},
        "by_step": {name: _by_step(lines) for name, lines in deviations.items()},
    }


def draw(record: dict[str, Any]) -> Figure:
    """The logits of a few points, the same without scaling the biases, and the deviations."""
    numbers = record["numbers"]
    steps = range(record["config"]["steps"] + 1)
    figure, axes = subplots(1, 3, width=11, height=3.8)
    titles = ("Scaled: nothing moves", "Biases left unscaled")
    for ax, name, title in zip(axes[0], _SHOWN, titles, strict=False):
        for line in numbers["logits"][name]:
            ax.plot(steps, line, lw=1.3, color=COLORS["Adam"], alpha=0.75)
        ax.set(xlabel="scalings", ylabel="logit of class 0", title=title)
    axes[0, 1].set_yscale("symlog", linthresh=0.1)
    axes[0, 1].set_ylabel("logit of class 0 (log scale beyond ±0.1)")
    last = axes[0, 2]
    colors = {"float32": COLORS["SAM"], "float64": EXACT}
    for name, summary in numbers["by_step"].items():
        if name.startswith("no biases"):
            continue
        dtype = name.rpartition(" ")[2]
        color = COLORS["SGD"] if "unscaled" in name else colors[dtype]
        band(last, steps[1:], summary["low"][1:], summary["high"][1:], color)
        last.plot(steps[1:], summary["median"][1:], color=color)
        middle = len(steps) // 2
        last.annotate(
            "biases left unscaled" if "unscaled" in name else f"biases scaled too, {dtype}",
            (middle, summary["high"][middle]),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            color=color,
            fontsize=8.5,
        )
    last.set_yscale("log")
    last.set(
        xlabel="scalings", ylabel="largest deviation / rms", title="How far the outputs moved",
        ylim=(1e-17, 1e6),
    )  # fmt: skip
    letter(axes[0])
    return figure


def answer(record: dict[str, Any]) -> str:
    """What a scaling does to the outputs, with and without the biases."""
    largest = record["numbers"]["largest"]
    rounding = max(max(largest[f"{name}, float64"]) for name in ("no biases", "biases scaled too"))
    moved = median(largest["biases left unscaled, float64"])
    return (
        "Rescaling leaves the outputs as they are, but for rounding (at most "
        f"{written(rounding, 2)} of their root mean square), where there are no biases or they "
        f"are scaled too; where they are left behind, outputs move by {moved:.0f} times their "
        "own size in the median network."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """Rounding alone moves the outputs, unless the biases are left behind."""
    largest = record["numbers"]["largest"]
    seeds, steps = record["config"]["seeds"], record["config"]["steps"]

    def worst(name: str) -> float:
        return float(max(largest[name]))

    verdicts = [
        Verdict(
            claim,
            reported,
            f"over {steps} scalings and {seeds} networks, outputs move by at most "
            f"{written(worst(f'{name}, float64'), 2)} of their rms in float64 and "
            f"{written(worst(f'{name}, float32'), 2)} in float32",
            worst(f"{name}, float64") <= 1e-12 and worst(f"{name}, float32") <= 5e-5,
        )
        for claim, reported, name in (
            ("Positive scalings have no effect on the output", "flat lines", "no biases"),
            (
                "Scaling the biases along has no effect on it either",
                "section I, by definition",
                "biases scaled too",
            ),
        )
    ]
    moved = largest["biases left unscaled, float64"]
    return [
        *verdicts,
        Verdict(
            "Scaling the weights and leaving the biases unchanged keeps the function",
            "implied: ASAM “only considers positive scaling transformations that leave the biases "
            "unchanged”",
            f"they move by {range_of(moved)} times their rms",
            median(moved) < 1e-3,
        ),
    ]


def tables(record: dict[str, Any]) -> list[Table]:
    """The largest deviation of each network, over networks."""
    rows = [(name, range_of(values)) for name, values in record["numbers"]["largest"].items()]
    return [Table("Largest deviation of an output over the rms of the outputs", ("", "here"), rows)]


def notes(record: dict[str, Any]) -> list[str]:
    """How to read the panels."""
    seeds = record["config"]["seeds"]
    return [
        "(a) the report's figure: eight points, one network without biases. (b) the same kind of "
        "network with biases, its weights scaled and its biases not. Every hidden unit then gets "
        "a signal of one scale and a bias of another, and the function changes. (c) median and "
        f"10–90 % band over {seeds} networks.",
        "The report's figure 2 shows a slight wobble. It is not float32, whose rounding is "
        "thousands of times too small to see; matrix products in reduced precision (TF32) "
        "would explain it, and here the factors are applied element by element in float64.",
    ]


def _deviation(outputs: Tensor) -> Tensor:
    """Largest distance of a logit from its start, relative to the rms, for every step."""
    start = outputs[0]
    return (outputs - start).abs().amax(dim=(1, 2)) / start.square().mean().sqrt()


def _by_step(lines: list[list[float]]) -> dict[str, list[float]]:
    values = torch.tensor(lines, dtype=torch.float64)
    levels = {"low": 0.1, "median": 0.5, "high": 0.9}
    return {name: rounded(values.quantile(level, dim=0)) for name, level in levels.items()}
