"""The toy data at six variances.

Claim: The variance controls how far the two classes of the toy distribution overlap.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flatmin.data import figure8
from flatmin.record.item import Table, Verdict
from flatmin.record.style import COLORS, letter, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which sets are drawn."""

    points: int = 2000
    """Points of a set, a multiple of 4."""
    variances: tuple[float, ...] = (5.0, 10.0, 15.0, 30.0, 50.0, 80.0)
    """Variances of the sets, at most six, as in the report."""
    seed: int = 0
    """Seed of the points."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.variances) <= 6:
            raise ValueError(f"variances must be one to six numbers, got {len(self.variances)}.")


FULL = Config()
QUICK = Config()


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Draw the sets, and count the points of the inner class beyond the inner edge of the outer."""
    generator = torch.Generator().manual_seed(config.seed)
    sets = []
    for variance in config.variances:
        points, labels = figure8(config.points, variance, generator=generator)
        inner = points[labels == 0]
        half = len(inner) // 2  # the left center first
        center = torch.tensor([[-5.0, 0.0], [5.0, 0.0]]).repeat_interleave(half, dim=0)
        x, y = ([round(value, 2) for value in points[:, axis].tolist()] for axis in (0, 1))
        sets.append(
            {
                "variance": variance,
                "beyond": ((inner - center).norm(dim=1) > 4).double().mean().item(),
                "beyond_expected": math.erfc(4 / math.sqrt(2 * variance)) if variance else 0.0,
                "x": x,
                "y": y,
                "labels": labels.tolist(),
            }
        )
    return {"sets": sets}


def draw(record: dict[str, Any]) -> Figure:
    """Six scatter plots on common axes."""
    sets = record["numbers"]["sets"]
    figure, axes = subplots(2, 3, width=10, height=6.2, sharex=True, sharey=True)
    for ax, data in zip(axes.flat, sets, strict=False):
        inner = [label == 0 for label in data["labels"]]
        for chosen, color, name in ((True, "Adam", "class 0"), (False, "SAM", "class 1")):
            x, y = (
                [
                    value
                    for value, is_inner in zip(data[axis], inner, strict=True)
                    if is_inner == chosen
                ]
                for axis in "xy"
            )
            ax.scatter(
                x,
                y,
                s=5,
                color=COLORS[color],
                alpha=0.45,
                linewidths=0,
                label=name,
                rasterized=True,  # thousands of points would be a file of a megabyte
            )
        ax.set_title(f"variance {data['variance']:g}")
        ax.set_aspect("equal")
    for ax in axes.flat[len(sets) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("$x_1$")
    for ax in axes[:, 0]:
        ax.set_ylabel("$x_2$")
    letter(axes.flat[: len(sets)])
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=3
    )
    return figure


def answer(record: dict[str, Any]) -> str:
    """How far the classes overlap at the least and at the largest variance."""
    least, *_, most = sorted(record["numbers"]["sets"], key=lambda data: data["variance"])
    return (
        f"At variance {least['variance']:g}, {100 * least['beyond']:.0f} % of class 0 lie beyond "
        f"the inner edge of class 1; at {most['variance']:g}, {100 * most['beyond']:.0f} %."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """The overlap grows with the variance, as much as the definition says."""
    sets = sorted(record["numbers"]["sets"], key=lambda data: data["variance"])
    shares = [data["beyond"] for data in sets]
    inner = record["config"]["points"] // 2
    within = all(
        abs(s["beyond"] - s["beyond_expected"])
        <= 3 * math.sqrt(max(s["beyond_expected"] * (1 - s["beyond_expected"]), 1 / inner) / inner)
        for s in sets
    )
    grows = all(low < high for low, high in itertools.pairwise(shares))
    return [
        Verdict(
            "The larger the variance, the more the classes overlap",
            "shown for variances 5 to 80",
            f"{100 * shares[0]:.0f} % of class 0 lie beyond the inner edge of class 1 at variance "
            f"{sets[0]['variance']:g}, {100 * shares[-1]:.0f} % at {sets[-1]['variance']:g}; all "
            f"{'within' if within else 'NOT within'} three standard errors of the definition",
            grows and within,
        )
    ]


def tables(record: dict[str, Any]) -> list[Table]:
    """The overlap, counted and from the definition."""
    rows = [(s["variance"], s["beyond"], s["beyond_expected"]) for s in record["numbers"]["sets"]]
    header = ("variance", "share of class 0 beyond radius 4", "by the definition")
    return [Table("Overlap", header, rows)]
