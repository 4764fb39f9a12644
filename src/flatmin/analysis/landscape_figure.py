"""The figure of ``flatmin measure``: the loss along and around the steepest direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flatmin.analysis.plane_figure import color_bar, draw_plane, levels_of, numbers, second_name
from flatmin.analysis.titles import about
from flatmin.record.style import COLORS, EXACT, INK, letter, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def landscape_figure(record: dict[str, Any]) -> Figure:
    """Draw from the record of a measurement alone."""
    land = record["landscape"]
    figure, axes = subplots(1, 2, width=11, height=4.6, gridspec_kw={"width_ratios": (1, 1.08)})
    _line(axes[0, 0], land)
    ax = axes[0, 1]
    levels = levels_of(numbers(land["plane"]))
    filled = draw_plane(ax, land, levels, title="Around: the edge of the ball is purple")
    color_bar(filled, ax, levels)
    ax.plot(1, 0, "o", color="white", mec=INK, ms=5)
    letter([axes[0, 0], axes[0, 1]])
    figure.suptitle(about(record), fontsize=9.5)
    return figure


def _line(ax: Axes, land: dict[str, Any]) -> None:
    """Where the curves leave the ball, the shade ends."""
    ax.axvspan(-1, 1, color=EXACT, alpha=0.08, lw=0)
    for name, label, color in (
        ("first", "steepest direction", COLORS["SAM"]),
        ("second", second_name(land), COLORS["Adam"]),
        ("random", "random direction", "#8C8C8C"),
    ):
        ax.plot(land["line"], numbers(land[name]), color=color, label=label)
    ax.plot(0, land["loss"], "o", color=INK, ms=5, zorder=3)
    ax.set(
        xlabel="distance from the network, in units of rho",
        ylabel="loss",
        title="Along: the ball is shaded",
        xlim=(land["line"][0], land["line"][-1]),
    )
    ax.legend(loc="upper center")
