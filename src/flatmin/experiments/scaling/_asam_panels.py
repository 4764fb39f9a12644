"""The panels of figure 4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flatmin.experiments.scaling._asam_measures import BIASED, EXACT, PLAIN, PUBLISHED
from flatmin.experiments.scaling._walk import median
from flatmin.record.style import COLORS, INK, band, letter
from flatmin.record.style import EXACT as PURPLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_BAND = "10 to 90 % of the networks"


def panels(numbers: dict[str, Any]) -> Figure:
    """Draw the whole figure from the numbers of a record."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.8), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 1.1])[:, 0]
    a, b, c = above.subplots(1, 3)
    d, e = below.subplots(1, 2, width_ratios=[1, 1.5])
    published = numbers["measures"][f"{PUBLISHED} | {PLAIN}"]
    moved = np.array(published["loss_ratio"], dtype=float)
    title = (
        f"As plotted: {np.median(moved):.2f}-fold\nin the median, at most {moved.max():.0f}-fold"
    )
    _curves(a, published["losses"], "ASAM loss L(w + ε)", title)
    a.set_yscale("log")
    ticks = (0.5, 1, 2, 5, 10, 20, 50, 100)
    top = np.nanmax(np.array(published["losses"]["some"], dtype=float))
    a.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    a.minorticks_off()
    a.set_ylim(0.5, 1.5 * top)
    _curves(b, published["rises"], "rise L(w + ε) − L(w)", "The rise alone: far from constant")
    b.set_yscale("symlog", linthresh=1e-3)  # it may be negative
    b.axhline(0, color=INK, lw=0.8, ls=":")
    _etas(c, numbers["etas"])
    _relative(d, numbers["measures"])
    _spreads(e, numbers["measures"])
    letter([a, b, c, d, e])
    return figure


def _curves(ax: Axes, lines: dict[str, Any], label: str, title: str) -> None:
    color = COLORS["ASAM"]
    for line in lines["some"]:
        ax.plot(line, color=color, lw=0.8, alpha=0.3)
    ax.plot(lines["median"], color=color, lw=2.2, label="median network")
    ax.set(xlabel="scalings", ylabel=label, title=title)
    ax.legend(loc="upper left")


def _etas(ax: Axes, etas: dict[str, dict[str, list[float]]]) -> None:
    """Networks without biases: how the spread follows eta."""
    x = [float(eta) for eta in etas]
    for key, style, name in (("rise_spread", "-", "the rise"), ("loss_spread", "--", "the loss")):
        columns = np.array([kept[key] for kept in etas.values()], dtype=float)
        low, middle, high = np.nanquantile(columns, [0.1, 0.5, 0.9], axis=1)
        ax.plot(x, middle, style, color=COLORS["ASAM"], label=name)
        band(ax, x, list(low), list(high), COLORS["ASAM"])
    ax.plot([], [], color=COLORS["ASAM"], lw=7, alpha=0.15, label=_BAND)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set(xlabel="eta", ylabel="(max − min) / |mean|", title="The drift follows eta")
    ax.legend(loc="upper left")


def _relative(ax: Axes, measures: dict[str, dict[str, Any]]) -> None:
    """Networks with biases: the rise against its start."""
    for measure, color, name in (
        ("SAM", COLORS["SAM"], "SAM"),
        (PUBLISHED, COLORS["ASAM"], "ASAM as published"),
        (EXACT, PURPLE, "T = |w| on weights and biases"),
    ):
        steps = measures[f"{measure} | {BIASED}"]["relative_rise"]
        low = [max(value, 1e-9) for value in steps["low"]]  # a band goes down to a negative rise
        band(ax, range(len(low)), low, steps["high"], color)
        ax.plot(_positive(steps["median"]), color=color, lw=2, label=name)
    ax.plot([], [], color=INK, lw=7, alpha=0.15, label=_BAND)
    ax.set_yscale("log")
    ax.set_ylim(1e-2, None)
    ax.set(xlabel="scalings", ylabel="rise, relative to its start", title="Biases scaled too")
    ax.legend(loc="upper left")


def _spreads(ax: Axes, measures: dict[str, dict[str, Any]]) -> None:
    """One row for each T and kind of network, one line for each network."""
    for place, (name, kept) in enumerate(measures.items()):
        values = [max(value, 1e-17) for value in kept["rise_spread"]]
        color = PURPLE if name.startswith("T") else COLORS["SAM" if name[0] == "S" else "ASAM"]
        ax.plot(values, [place] * len(values), "|", color=color, ms=9, alpha=0.3)
        ax.plot(median(values), place, "o", color=color, ms=6.5, mec="white", mew=1)
    ax.set_xscale("log")
    ax.set_yticks(range(len(measures)), [name.replace(" | ", "; ") for name in measures])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.axvline(1, color=INK, lw=0.8, ls=":")
    ax.set(
        xlabel="(max − min) / |mean| of the rise; zero is drawn at 1e-17",
        title="Every T, every network",
        xlim=(3e-18, 1e3),
    )


def _positive(values: Sequence[float | None]) -> NDArray[np.float64]:
    """A gap where a logarithm has nothing to show."""
    numbers = np.array(values, dtype=float)
    return np.where(numbers > 0, numbers, np.nan)
