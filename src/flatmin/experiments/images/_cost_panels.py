"""The panels on accuracy against cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flatmin.compare.panels import caption, color
from flatmin.compare.statistics import mean
from flatmin.experiments.images._cost_table import whole
from flatmin.experiments.images._forms import LENGTHS
from flatmin.record.style import FAINT, letter, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COSTS = {"gradients": "gradients, SGD = 1", "seconds": "seconds, side by side, SGD = 1"}


def panels(record: dict[str, Any]) -> Figure:
    """Draw the whole figure from a record."""
    figure, axes = subplots(1, 2, width=11, height=4.8, sharey=True)
    numbers = record["numbers"]
    found, best = numbers["forms"], whole(numbers)
    for ax, (key, words) in zip(axes[0], _COSTS.items(), strict=True):
        _against(ax, found, key, best)
        ax.set(xlabel=words, title=f"Accuracy against {key}")
    axes[0, 0].set_ylabel("test accuracy in %, last epoch, 95 % interval")
    letter(axes.flat)
    caption(figure, record)
    return figure


def _against(ax: Axes, found: dict[str, Any], cost: str, best: str) -> None:
    lengths = [(found[name][cost], mean(found[name]["last"]).value) for name in LENGTHS]
    ax.plot(*zip(*lengths, strict=True), color=color("SGD"), lw=1.2, ls="--")
    ax.axhline(mean(found[best]["last"]).value, color=FAINT, lw=0.9)
    points = sorted(
        ((found[name][cost], mean(found[name]["last"]), name) for name in found),
        key=lambda point: point[1].value,
    )
    low, high = points[0][1].value, points[-1][1].value
    gap = 0.055 * (high - low or 1.0)
    taken: list[tuple[float, float]] = []
    for x, middle, name in points:
        half = middle.half if middle.n > 1 else 0.0
        ax.errorbar(x, middle.value, half, fmt="o", ms=6, color=color(name), mec="white", lw=1.2)
        y = middle.value
        # A name goes up until it covers none of those beside it.
        while any(abs(x - other) < 0.42 and abs(y - height) < gap for other, height in taken):
            y += 0.25 * gap
        taken.append((x, y))
        ax.annotate(
            name,
            (x, middle.value),
            (x + 0.035, y),
            fontsize=8,
            va="center",
            color=color(name),
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
        )
    right = max(x for x, _, _ in points)
    ax.set_xlim(0.9, right + 0.45)
