"""The panels on accuracy against gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flatmin.compare.optimizers import MINIMIZERS
from flatmin.compare.panels import caption, color
from flatmin.compare.statistics import mean
from flatmin.record.style import letter, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def panels(record: dict[str, Any]) -> Figure:
    """Draw the whole figure from a record."""
    figure, axes = subplots(1, 3, width=11, height=4.4)
    numbers, config = record["numbers"], record["config"]
    _by_epoch(axes[0, 0], numbers, config["epochs"], max(config["multiples"]))
    for ax, base in zip(axes[0, 1:], ("Adam", "SGD"), strict=True):
        _by_length(ax, numbers["equal_epochs"], base, config["multiples"])
    axes[0, 0].set_title("As reported: mean,\n95 % interval at the last epoch")
    axes[0, 0].set_ylabel("test accuracy in %")
    letter(axes.flat)
    caption(figure, record)
    return figure


def _by_epoch(ax: Axes, numbers: Mapping[str, Any], epochs: int, longest: int) -> None:
    for place, (name, curve) in enumerate(numbers["curves"].items()):
        cost = [epoch * curve["gradients"] for epoch in curve["epochs"]]
        ax.plot(cost, curve["test"], color=color(name), label=name)
        ended = name if name in numbers["reported"] else f"{name} × {longest}"
        found = mean(numbers["reported"][ended]["last"])
        if found.n > 1:  # a curve is stored as its mean; its end has every seed
            ax.errorbar(cost[-1] + 1.5 * (place - 1), found.value, found.half, color=color(name))
    ax.axvline(2 * epochs, color=color("SAM"), lw=0.8, ls=":")
    ax.set(xlabel="gradients, in epochs of Adam")
    ax.legend(loc="best")


def _by_length(
    ax: Axes, columns: Mapping[str, dict[str, list[Any]]], base: str, lengths: list[int]
) -> None:
    lengths = sorted(lengths)
    for place, name in enumerate(MINIMIZERS):
        whole = f"{base} + {name}"
        _point(ax, 2 + 0.06 * (2 * place - 1), columns[whole]["last"], whole, whole)
    means = []
    for length in lengths:
        found = columns[f"{base} × {length}"]["last"]
        means.append(mean(found).value)
        _point(ax, length, found, base, base if length == lengths[0] else None)
    ax.plot(lengths, means, color=color(base), lw=1)
    ax.set(
        title=f"Controlled, around {base}:\nmean, 95 % interval, and seeds",
        xlabel="gradients, in lengths of the base",
    )
    ax.set_xticks(lengths)
    ax.legend(loc="best")


def _point(ax: Axes, x: float, values: list[float | None], name: str, label: str | None) -> None:
    middle = mean(values)
    known = [value for value in values if value is not None]
    ax.plot([x] * len(known), known, "o", ms=3.5, color=color(name), alpha=0.4)
    half = middle.half if middle.n > 1 else 0.0
    ax.errorbar(x, middle.value, half, fmt="D", ms=6, color=color(name), mec="white", label=label)
