"""The figure of ext_budget: accuracy against gradients, and gains against the length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flatmin.compare.panels import caption, color
from flatmin.compare.statistics import Mean, mean
from flatmin.experiments.images._budget_words import gains
from flatmin.record.style import INK, letter, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def panels(record: dict[str, Any]) -> Figure:
    """Draw a row for each share of wrong labels."""
    levels = record["numbers"]["levels"]
    figure, axes = subplots(len(levels), 2, width=11, height=0.4 + 3.5 * len(levels))
    for (left, right), level in zip(axes, levels, strict=True):
        words = f"{level['noise']:.0%} wrong labels" if level["noise"] else "right labels"
        _accuracies(left, level)
        left.set_title(f"Test accuracy, {words}")
        _gains(right, level)
        right.set_title(f"Gain over SGD, {words}")
    letter(axes.flat)
    caption(figure, record)
    return figure


def _accuracies(ax: Axes, level: dict[str, Any]) -> None:
    lines: dict[str, dict[int, Mean]] = {"SGD": {}, "SAM": {}, "ASAM": {}}
    for length in level["lengths"]:
        for name, arm in length["arms"].items():
            gradients = length["epochs"] * (1 if name == "SGD" else 2)
            lines[name.partition(" ")[0]].setdefault(gradients, mean(arm["last"]))
    for name, points in lines.items():
        spent = sorted(points)
        _line(ax, spent, [points[place] for place in spent], name, "o-")
    every = sorted({spent for points in lines.values() for spent in points})
    _spent(ax, every, "gradients, in epochs of SGD")
    ax.set_ylabel("test accuracy in %")
    ax.legend()


def _gains(ax: Axes, level: dict[str, Any]) -> None:
    epochs = [length["epochs"] for length in level["lengths"]]
    for name in ("SAM", "ASAM"):
        _line(ax, epochs, gains(level, name, "SGD × 2"), name, "D-", "equal gradients")
        _line(ax, epochs, gains(level, name, "SGD"), name, "o--", "equal epochs")
    ax.axhline(0, color=INK, lw=0.9)
    _spent(ax, epochs, "epochs of SAM and ASAM")
    ax.set_ylabel("points, 95 % interval")
    ax.legend()


def _line(
    ax: Axes, x: list[int], values: list[Mean], name: str, style: str, words: str = ""
) -> None:
    half = [value.half if value.n > 1 else 0.0 for value in values]
    label = f"{name}, {words}" if words else name
    place = {"SGD": 1.0, "SAM": 0.97, "ASAM": 1.03}[name]  # so that intervals lie side by side
    ax.errorbar(
        [place * point for point in x],
        [value.value for value in values],
        half,
        fmt=style,
        ms=4.5,
        lw=1.3,
        color=color(name),
        label=label,
    )


def _spent(ax: Axes, values: Sequence[int], words: str) -> None:
    ax.set_xscale("log")
    ax.set_xticks(values, [str(value) for value in values])
    ax.minorticks_off()
    ax.set_xlabel(words)
