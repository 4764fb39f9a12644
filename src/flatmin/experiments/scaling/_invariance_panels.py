"""The figure of ext_invariance: what stays under rescaling, and what does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flatmin.experiments.scaling._walk import median
from flatmin.record.style import COLORS, EXACT, INK, band, letter, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = {"SAM rise": "o-", "filter-wise rise": "s--", "published ASAM rise": "^-."}
_FLOOR = 1e-17  # where an exact zero is drawn
_FILTERS = "#56B4E9"  # lighter than the others, for who cannot tell red from green


def panels(numbers: dict[str, Any], modes: Mapping[str, str]) -> Figure:
    """Draw the four panels from the numbers of the record."""
    figure, axes = subplots(2, 2, width=12, height=11, gridspec_kw={"width_ratios": (1.25, 1)})
    (a, b), (c, d) = axes
    _spreads(a, numbers["spreads"])
    _ranking(b, numbers)
    _wide(c, numbers["wide"], modes)
    _pairs(d, numbers["before_and_after"])
    letter([a, b, c, d])
    return figure


def _color(name: str) -> str:
    if name.startswith("filter"):
        return _FILTERS
    return COLORS["SAM"] if name.startswith("SAM") else COLORS["ASAM"] if "ASAM" in name else EXACT


def _spreads(ax: Axes, spreads: dict[str, dict[str, list[float]]]) -> None:
    """One row for each measure, one line for each network, float32 below float64."""
    names = list(spreads["float64"])
    for place, name in enumerate(names):
        for dtype, shift in (("float64", -0.16), ("float32", 0.16)):
            if name in spreads[dtype]:
                alone = name not in spreads["float32"]
                _strip(
                    ax, place + (0 if alone else shift), spreads[dtype][name], _color(name), dtype
                )
    for dtype, fill in (("float64", EXACT), ("float32", "white")):
        ax.plot([], [], "o", color=fill, mec=EXACT, ms=6, label=f"median, {dtype}")
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 0.0))
    _rows(ax, names, "One function, many networks: how far a measure moves")


def _strip(ax: Axes, place: float, values: Sequence[float], color: str, dtype: str) -> None:
    shown = [max(value, _FLOOR) for value in values]
    ax.plot(shown, [place] * len(shown), "|", color=color, ms=8, alpha=0.35)
    fill = color if dtype == "float64" else "white"
    ax.plot(
        median(shown), place, "o", color=fill, ms=6, mec=color if dtype != "float64" else "white"
    )


def _rows(ax: Axes, names: Sequence[str], title: str) -> None:
    ax.set_xscale("log")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.axvline(1, color=INK, lw=0.8, ls=":")
    ax.set(xlabel="(max − min) / |mean| over the scalings", title=title, xlim=(3e-18, 1e3))


def _ranking(ax: Axes, numbers: dict[str, Any]) -> None:
    """How Kendall's τ between networks and copies falls with the number of scalings."""
    lowest = np.array(list(numbers["kendall"].values())).min(axis=0)
    ax.plot(numbers["after"], lowest, color=EXACT, lw=2.4, label="T = |w|: lowest of all measures")
    marks = [0, *numbers["marks"]]
    for name in _LINES:
        taus = np.array(numbers["kendall_fooled"][name])  # [copies, marks]
        low, middle, high = ([1.0, *np.quantile(taus, q, axis=0)] for q in (0.1, 0.5, 0.9))
        ax.plot(marks, middle, _LINES[name], color=_color(name), ms=5, label=name)
        band(ax, marks, low, high, _color(name))
    ax.axhline(0, color=INK, lw=0.8, ls=":")
    ax.set(
        xlabel="scalings",
        ylabel="Kendall's τ, networks and their copies",
        title="Which network is flatter?",
        ylim=(-0.5, 1.08),
    )
    ax.legend(loc="upper right", bbox_to_anchor=(1.0, 0.93))


def _wide(ax: Axes, wide: list[dict[str, Any]], modes: Mapping[str, str]) -> None:
    """A row for each measure, a shape for each mode, a mark for each network."""
    names = list(wide[0][next(iter(modes))]["spreads"])
    for (mode, label), marker, shift in zip(modes.items(), ("o", "s"), (-0.13, 0.13), strict=True):
        for place, name in enumerate(names):
            values = [max(net[mode]["spreads"][name], _FLOOR) for net in wide]
            fill = _color(name) if marker == "o" else "white"
            ax.plot(
                values, [place + shift] * len(values), marker, color=fill, mec=_color(name), ms=6
            )
        ax.plot([], [], marker, color=EXACT if marker == "o" else "white", mec=EXACT, label=label)
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 0.0))
    _rows(ax, names, "WRN-10-1 with BatchNorm, digits, float64")


def _pairs(ax: Axes, pairs: dict[str, list[list[float]]]) -> None:
    """One dot for each network: its own value, and that of its last copy."""
    ends = [value for points in pairs.values() for pair in points for value in pair if value > 0]
    low, high = min(ends) / 2, max(ends) * 2
    ax.plot([low, high], [low, high], color="#B8B8B8", lw=1, zorder=1)
    for name, points in pairs.items():
        x, y = np.array(points).T
        label = f"T = |w|: {name}" if _color(name) == EXACT else name
        ax.plot(x, y, "o", color=_color(name), ms=6, alpha=0.75, mec="white", label=label)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set(
        xlabel="the network",
        ylabel="its copy after the last scaling",
        title="The same function, measured twice",
        xlim=(low, high),
        ylim=(low, high),
    )
    ax.legend(loc="lower right")
