"""The figure of the two sharpest directions, from its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flatmin.analysis.plane_figure import color_bar, draw_plane, levels_of, numbers
from flatmin.analysis.titles import about
from flatmin.record.blocks import written
from flatmin.record.style import COLORS, EXACT, INK, letter, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def eigenplane_figure(record: Mapping[str, Any], plane: Mapping[str, Any]) -> Figure:
    """Draw lines along both directions with their parabolas, and the plane that they span.

    Args:
        record: That of the look.
        plane: What ``eigenplane`` gave.

    Returns:
        A figure.
    """
    figure, axes = subplots(2, 1, width=6.4, height=9.2, gridspec_kw={"height_ratios": (1, 1.5)})
    upper, lower = axes[:, 0]
    _lines(upper, plane)
    levels = levels_of(numbers(plane["plane"]))
    filled = draw_plane(
        lower, dict(plane), levels,
        title="Around: the edge of the ball is purple",
        across="first eigenvector, in units of rho", up="second eigenvector, in units of rho",
    )  # fmt: skip
    color_bar(filled, lower, levels)
    letter([upper, lower])
    figure.suptitle(about(record), fontsize=9.5)
    return figure


def _lines(ax: Axes, plane: Mapping[str, Any]) -> None:
    ax.axvspan(-1, 1, color=EXACT, alpha=0.08, lw=0)
    x = np.array(plane["line"])
    rows = zip(("first", "second"), plane["eigenvalues"], plane["residuals"], strict=True)
    seen = []
    for k, (name, value, residual) in enumerate(rows):
        color = (COLORS["SAM"], COLORS["Adam"])[k]
        label = f"{name}, λ = {written(value, 3)} ± {written(residual, 1)}"
        (line,) = ax.plot(x, numbers(plane[name]), color=color, label=label)
        seen.append(np.asarray(line.get_ydata(), dtype=float))
        bend = plane["loss"] + plane["slopes"][k] * x + plane["bends"][k] * x**2 / 2
        ax.plot(x, bend, color=color, ls=(0, (2, 2)), lw=1)
    ax.plot(0, plane["loss"], "o", color=INK, ms=5, zorder=3)
    low, high = np.nanmin(seen), np.nanmax(seen)
    room = 0.08 * (high - low) or 1.0
    ax.set(
        xlabel="distance from the network, in units of rho",
        ylabel="loss",
        title="Along the eigenvectors of T H T; dotted: their parabolas",
        xlim=(x[0], x[-1]),
        ylim=(low - room, high + 3 * room),
    )
    ax.legend(loc="upper center")
