"""The figure of ``flatmin measure``: the loss along and around the steepest direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flatmin.record.style import COLORS, EXACT, INK, letter, subplots, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def landscape_figure(record: dict[str, Any]) -> Figure:
    """Draw from the record of a measurement alone."""
    land = record["landscape"]
    figure, axes = subplots(1, 2, width=11, height=4.6, gridspec_kw={"width_ratios": (1, 1.08)})
    _line(axes[0, 0], land)
    _plane(axes[0, 1], land)
    letter([axes[0, 0], axes[0, 1]])
    ball = record["ball"]
    subject = verbatim(f"{record['title']}; {record['data']['source']}")
    order = "∞" if ball["p"] == "inf" else ball["p"]
    figure.suptitle(
        f"{subject}, {record['data']['examples']} examples\n"
        f"{ball['scale']}, rho = {ball['rho']:g}, p = {order}",
        fontsize=9.5,
    )
    return figure


def _line(ax: Axes, land: dict[str, Any]) -> None:
    """Where the curves leave the ball, the shade ends."""
    ax.axvspan(-1, 1, color=EXACT, alpha=0.08, lw=0)
    for name, label, color in (
        ("first", "steepest direction", COLORS["SAM"]),
        ("second", _second(land), COLORS["Adam"]),
        ("random", "random direction", "#8C8C8C"),
    ):
        ax.plot(land["line"], _numbers(land[name]), color=color, label=label)
    ax.plot(0, land["loss"], "o", color=INK, ms=5, zorder=3)
    ax.set(
        xlabel="distance from the network, in units of rho",
        ylabel="loss",
        title="Along: the ball is shaded",
        xlim=(land["line"][0], land["line"][-1]),
    )
    ax.legend(loc="upper center")


def _plane(ax: Axes, land: dict[str, Any]) -> None:
    from matplotlib.colors import LogNorm, Normalize

    loss = np.ma.masked_invalid(_numbers(land["plane"]))
    low, high = float(loss.min()), float(loss.max())
    # Levels of equal ratio show a valley that levels of equal distance would leave white.
    ratios = low > 0 and high / low > 20
    levels = np.geomspace(low, high, 16) if ratios else np.linspace(low, high + 1e-12, 16)
    norm = (LogNorm if ratios else Normalize)(vmin=levels[0], vmax=levels[-1])
    axis = land["grid"]
    filled = ax.contourf(axis, axis, loss, levels=levels, norm=norm, cmap="YlOrBr")
    ax.contour(axis, axis, loss, levels=levels, colors="white", linewidths=0.5)
    ax.plot(*_numbers(land["edge"]).T, color=EXACT, lw=1.8)
    ax.plot(0, 0, "o", color=INK, ms=5)
    ax.plot(1, 0, "o", color="white", mec=INK, ms=5)
    bar = ax.figure.colorbar(filled, ax=ax, label="loss", ticks=levels[::3], format="%.3g")
    bar.ax.minorticks_off()
    ax.set(
        xlabel="steepest direction, in units of rho",
        ylabel=f"{_second(land)}, in units of rho",
        title="Around: the edge of the ball is purple",
        xlim=(axis[0], axis[-1]),
        ylim=(axis[0], axis[-1]),
        aspect="equal",
    )
    ax.grid(visible=False)


def _second(land: dict[str, Any]) -> str:
    return "where a climb turns" if land["turns"] else "random direction across"


def _numbers(values: Any) -> Any:
    """None, which is how a record writes what is not finite, becomes NaN."""
    return np.array(values, dtype=float)
