"""A flat minimum and a sharp one when the landscape shifts.

Claim: Of two minima of equal depth, the same small shift between training and test loss raises the
loss more in the sharper one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flatmin.objective import FunctionObjective
from flatmin.record.blocks import written
from flatmin.record.item import Table, Verdict
from flatmin.record.style import COLORS, FAINT, INK, letter, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOR = {"sharp": COLORS["SAM"], "flat": COLORS["ASAM"]}


@dataclass(frozen=True, kw_only=True)
class Config:
    """A loss of one parameter: two wells, dug by Gaussians of different width."""

    shift: float = 0.35
    """How far the test loss lies to the right of the training loss, in units of the parameter."""
    sharp_at: float = -2.0
    """Center of the sharp well."""
    sharp_width: float = 0.25
    """Standard deviation of its Gaussian."""
    flat_at: float = 2.5
    """Center of the flat well."""
    flat_width: float = 1.0
    """Standard deviation of its Gaussian."""

    def __post_init__(self) -> None:
        if min(self.shift, self.sharp_width, self.flat_width) <= 0:
            raise ValueError("shift, sharp_width and flat_width must be positive.")


FULL = Config()
QUICK = Config()


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Find both minima by Newton's method and follow the loss as the landscape shifts."""

    def loss(w: torch.Tensor) -> torch.Tensor:
        sharp = torch.exp(-0.5 * ((w - config.sharp_at) / config.sharp_width) ** 2)
        flat = torch.exp(-0.5 * ((w - config.flat_at) / config.flat_width) ** 2)
        return 1.0 - sharp - flat

    objective = FunctionObjective(lambda params: loss(params["w"]))
    shifts = torch.linspace(0.0, 2.0 * config.shift, 81, dtype=torch.float64)
    minima = {}
    for name, start in (("sharp", config.sharp_at), ("flat", config.flat_at)):
        w = torch.tensor(start, dtype=torch.float64)
        for _ in range(20):
            curvature = objective.hvp({"w": w}, {"w": torch.ones_like(w)})["w"]
            w = w - objective.value_and_grad({"w": w})[1]["w"] / curvature
        rise = loss(w - shifts) - loss(w)  # the test loss at w is the training loss at w - shift
        minima[name] = {
            "w": w.item(),
            "loss": loss(w).item(),
            "curvature": curvature.item(),
            "rise": (loss(w - config.shift) - loss(w)).item(),
            "rises": [round(value, 6) for value in rise.tolist()],
        }
    left = config.sharp_at - 6 * config.sharp_width
    grid = torch.linspace(left, config.flat_at + 2.5 * config.flat_width, 601, dtype=torch.float64)
    return {
        "minima": minima,
        "shifts": [round(value, 6) for value in shifts.tolist()],
        "grid": [round(value, 5) for value in grid.tolist()],
        "train": [round(value, 6) for value in loss(grid).tolist()],
        "test": [round(value, 6) for value in loss(grid - config.shift).tolist()],
    }


def draw(record: dict[str, Any]) -> Figure:
    """The landscape with both minima, and the rise against the shift."""
    numbers, config = record["numbers"], record["config"]
    figure, axes = subplots(1, 2, width=10, height=3.9, width_ratios=[1.6, 1])
    left, right = axes[0]
    left.plot(numbers["grid"], numbers["train"], color=INK, label="training loss")
    left.plot(
        numbers["grid"], numbers["test"], color=INK, ls=(0, (4, 2)), lw=1.2, label="test loss"
    )
    left.set(
        xlabel="parameter w", ylabel="loss", title="The test loss is shifted", ylim=(-0.08, 1.3)
    )
    left.legend(loc="upper right", ncols=2)
    for name, minimum in numbers["minima"].items():
        _arrow(left, name, minimum)
        color = _COLOR[name]
        right.plot(numbers["shifts"], minimum["rises"], color=color)
        parabola = 0.5 * minimum["curvature"] * np.array(numbers["shifts"]) ** 2
        right.plot(numbers["shifts"], parabola, color=color, lw=1, ls=":")
        right.plot(config["shift"], minimum["rise"], "o", color=color, ms=5)
        right.annotate(
            f"{name} minimum",
            (config["shift"], minimum["rise"]),
            xytext=(10, -4) if name == "sharp" else (0, 12),
            textcoords="offset points",
            ha="left" if name == "sharp" else "center",
            va="top" if name == "sharp" else "bottom",
            color=color,
        )
    right.plot([], [], color=FAINT, lw=1, ls=":", label="½ · curvature · shift²")
    right.set(
        xlabel="shift",
        ylabel="rise of the loss",
        title="The rise at the minimum",
        ylim=(-0.04, 1.1),
    )
    right.legend(loc="upper left")
    letter(axes[0])
    return figure


def answer(record: dict[str, Any]) -> str:
    """How much more the sharper minimum rises."""
    sharp, flat = (record["numbers"]["minima"][name] for name in ("sharp", "flat"))
    return (
        f"The same shift raises the loss {sharp['rise'] / flat['rise']:.1f} times as much at the "
        f"sharper minimum, where the curvature is {sharp['curvature'] / flat['curvature']:.1f} "
        "times as large."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """The sharper minimum rises more, at the same depth."""
    sharp, flat = (record["numbers"]["minima"][name] for name in ("sharp", "flat"))
    apart = abs(sharp["loss"] - flat["loss"])
    return [
        Verdict(
            "For minima of equal depth, a small shift raises the loss more where it is sharper",
            "a sketch without numbers, after Keskar et al. 2016",
            f"a shift of {record['config']['shift']:g} raises it by {sharp['rise']:.3f} and by "
            f"{flat['rise']:.3f}, {sharp['rise'] / flat['rise']:.1f} times as much, where the "
            f"curvature is {sharp['curvature'] / flat['curvature']:.1f} times as large "
            f"(depths differ by {written(apart, 1)})",
            sharp["rise"] > flat["rise"] and sharp["curvature"] > flat["curvature"],
        )
    ]


def tables(record: dict[str, Any]) -> list[Table]:
    """Both minima in numbers."""
    rows = [
        (name, m["w"], m["loss"], m["curvature"], m["rise"])
        for name, m in record["numbers"]["minima"].items()
    ]
    header = ("minimum", "at w", "training loss", "curvature", "rise under the shift")
    return [Table("The two minima", header, rows)]


def notes(record: dict[str, Any]) -> list[str]:
    """What the picture leaves out."""
    return [
        "The sketch has one parameter that means the same at both minima. A network does not: "
        "scaling its units changes the curvature at will and the function not at all, which is "
        "what figures 2 to 4 are about."
    ]


def _arrow(ax: Axes, name: str, minimum: dict[str, Any]) -> None:
    w, low, high = minimum["w"], minimum["loss"], minimum["loss"] + minimum["rise"]
    ax.plot([w, w], [low, high], color=_COLOR[name], lw=2.5)
    ax.plot(w, low, "o", color=_COLOR[name], ms=6)
    ax.plot(w, high, "_", color=_COLOR[name], ms=11, mew=2.5)
    # Beside the bar, where neither curve passes: outside the narrow well, and below the wide one.
    side, gap = (1, 0.9) if name == "sharp" else (-1, 0.8)
    ax.text(
        w + side * gap,
        high,
        f"{name}: rises\nby {minimum['rise']:.2f}"
        if name == "sharp"
        else f"{name}: rises by {minimum['rise']:.2f}",
        ha="left" if side > 0 else "right",
        va="center",
        color=_COLOR[name],
    )
