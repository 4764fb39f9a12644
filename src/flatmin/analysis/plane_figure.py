"""A plane of losses with the edge of the ball, from its record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flatmin.record.style import EXACT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_plane(
    ax: Axes,
    plane: dict[str, Any],
    levels: Any,
    *,
    title: str,
    across: str = "steepest direction, in units of rho",
    up: str | None = None,
    edge: bool = True,
) -> Any:
    """Draw losses on a grid, the network in its middle, and where the ball ends.

    Args:
        ax: Where to draw.
        plane: ``grid``, ``plane`` and ``edge`` of a record.
        levels: What ``levels_of`` gives.
        title: Title of the panel.
        across: Name of the first axis.
        up: Name of the second; None for that of a landscape.
        edge: Whether there is a ball, with an edge.

    Returns:
        The filled levels, for :func:`color_bar`.
    """
    axis = plane["grid"]
    filled = fill_plane(ax, axis, axis, plane["plane"], levels)
    if edge:
        ax.plot(*numbers(plane["edge"]).T, color=EXACT, lw=1.8)
    ax.plot(0, 0, "o", color=INK, ms=5)
    ax.set(
        xlabel=across,
        ylabel=up if up is not None else f"{second_name(plane)}, in units of rho",
        title=title,
        xlim=(axis[0], axis[-1]),
        ylim=(axis[0], axis[-1]),
        aspect="equal",
    )
    ax.grid(visible=False)
    return filled


def fill_plane(ax: Axes, x: Any, y: Any, losses: Any, levels: Any) -> Any:
    """Fill the levels of losses ``[len(y), len(x)]``; what is not finite stays white."""
    from matplotlib.colors import LogNorm, Normalize

    norm = (LogNorm if _by_ratio(levels) else Normalize)(vmin=levels[0], vmax=levels[-1])
    shown = np.ma.masked_invalid(numbers(losses))
    filled = ax.contourf(x, y, shown, levels=levels, norm=norm, cmap="YlOrBr")
    ax.contour(x, y, shown, levels=levels, colors="white", linewidths=0.5)
    return filled


def color_bar(filled: Any, axes: Any, levels: Any) -> None:
    """Say which color is which loss, beside one plane or several that share the levels."""
    bar = filled.figure.colorbar(filled, ax=axes, label="loss", ticks=levels[::3], format="%.3g")
    bar.ax.minorticks_off()


def levels_of(losses: Any) -> Any:
    """Sixteen levels: of equal ratio, where a valley would be left white by those of equal step."""
    found = np.ma.masked_invalid(losses)
    low, high = float(found.min()), float(found.max())
    if low > 0 and high / low > 20:
        return np.geomspace(low, high, 16)
    return np.linspace(low, high + 1e-12, 16)


def second_name(land: dict[str, Any]) -> str:
    """What the second axis of a landscape is."""
    return "where a climb turns" if land["turns"] else "random direction across"


def numbers(values: Any) -> Any:
    """None, which is how a record writes what is not finite, becomes NaN."""
    return np.array(values, dtype=float)


def _by_ratio(levels: Any) -> bool:
    first, second, last = levels[0], levels[1], levels[-1]
    return bool(first > 0 and last / first > 20 and second - first < (last - first) / 15.5)
