"""The figure of a line between two networks, from its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flatmin.analysis.plane_figure import numbers
from flatmin.record.blocks import written
from flatmin.record.style import COLORS, EXACT, INK, subplots, verbatim

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": "#8C8C8C", "ls": (0, (4, 2))},
    {"color": COLORS["Adam"], "ls": "-"},
    {"color": EXACT, "ls": "-"},
)


def line_figure(
    first: Mapping[str, Any], second: Mapping[str, Any], line: Mapping[str, Any]
) -> Figure:
    """Draw the losses between two networks, with the barrier of each line.

    Args:
        first: The record of the look at the first.
        second: That of the second.
        line: What ``line_between`` gave.

    Returns:
        A figure.
    """
    figure, axes = subplots(1, 1, width=6.4, height=4.4)
    ax = axes[0, 0]
    for one, looks in zip(line["lines"], _LOOKS, strict=True):
        label = f"{one['name']}: barrier {written(one['barrier'], 3)}"
        if one["reason"]:
            label += " (unchanged)"
        ax.plot(line["t"], numbers(one["losses"]), label=label, **looks)
    ends = line["lines"][0]["losses"]
    ax.plot([0, 1], numbers([ends[0], ends[-1]]), "o", color=INK, ms=5, zorder=3)
    ax.set(
        xlabel="from the first network (0) to the second (1)",
        ylabel="loss",
        title=f"{verbatim(first['title'])} to {verbatim(second['title'])}",
        xlim=(0, 1),
    )
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.25 * (high - low))
    ax.legend(loc="upper center")
    data = first["data"]
    figure.suptitle(f"{verbatim(data['source'])}, {data['examples']} examples", fontsize=9.5)
    return figure
