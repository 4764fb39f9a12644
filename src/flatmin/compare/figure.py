"""The figure of a comparison: differences seed by seed, and the epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flatmin.record.style import COLORS, INK, letter, subplots, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OWN = ("#0072B2", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito 2008
_REACH = 3.0  # an interval that few seeds make wider than the panel goes on to its edge


def figure(record: Mapping[str, Any]) -> Figure:
    """Draw the differences with their intervals, and the held-out metric by epoch.

    Args:
        record: The record of a comparison.

    Returns:
        The figure; a task with a loop of its own has no epochs to draw.
    """
    curves = {name: arm["curves"] for name, arm in record["arms"].items()}
    both = any(curve["epochs"] for curve in curves.values())
    # One above the other, so that a telephone shows them too.
    heights = [1.2 + 0.45 * len(record["differences"]), 3.4][: 1 + both]
    drawn, axes = subplots(1 + both, width=6.5, height=sum(heights), height_ratios=heights)
    draw_differences(axes[0, 0], record)
    if both:
        _curves(axes[1, 0], record, curves)
        letter(axes.flat)
    return drawn


def draw_differences(ax: Axes, record: Mapping[str, Any]) -> None:
    """Draw the differences seed by seed, their means with 95 % intervals, and what matters."""
    rows, shades = record["differences"], _shades(record)
    known = [value for row in rows for value in row["each"] if value is not None]
    ends = [abs(row[end]) for row in rows for end in ("low", "high") if row[end] is not None]
    reach = max(map(abs, known), default=1.0)
    reach = 1.08 * min(max([reach, *ends]), _REACH * reach) or 1.0
    worth = record["config"]["worth"]
    ax.axvspan(-worth, worth, color="#F0F0F0", lw=0, zorder=0)
    for place, row in enumerate(rows):
        shade = shades[row["arm"]]
        each = [value for value in row["each"] if value is not None]
        ax.plot(each, [place] * len(each), "o", ms=3.5, color=shade, alpha=0.4)
        if row["value"] is not None:
            ax.plot(row["value"], place, "D", ms=6, color=shade, mec="white")
        if row["low"] is not None:
            ax.plot([row["low"], row["high"]], [place] * 2, color=shade, lw=1.6)
    labels = [f"{row['arm']} − {row['reference']}\nequal {row['at']}" for row in rows]
    ax.set_yticks(range(len(rows)), list(map(verbatim, labels)))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(-reach, reach)
    ax.axvline(0, color=INK, lw=0.9)
    ax.grid(axis="y", visible=False)
    ax.set_title("Paired by seed: mean, 95 % interval")
    task = record["task"]
    unit = f", {task['unit']}" if task["unit"] else ""
    ax.set_xlabel(verbatim(f"gain in {task['metric']}{unit} (gray: less than matters)"))


def _curves(ax: Axes, record: Mapping[str, Any], curves: Mapping[str, Mapping[str, Any]]) -> None:
    shades, task = _shades(record), record["task"]
    for name, curve in curves.items():
        values = [float("nan") if value is None else value for value in curve["held"]]
        style = "--" if name.startswith("base ×") else "-"
        ax.plot(curve["epochs"], values, style, color=shades[name], label=verbatim(name))
    ax.set_title("Held-out part by epoch, mean over seeds")
    ax.set_xlabel("epoch")
    ax.set_ylabel(verbatim(f"{task['metric']}{' in %' if task['unit'] else ''}"))
    ax.locator_params(axis="x", integer=True)
    ax.legend()


def _shades(record: Mapping[str, Any]) -> dict[str, str]:
    found, others = {}, 0
    for name in record["arms"]:
        if name.startswith("base"):
            found[name] = COLORS["SGD"]
        elif name in ("sam", "asam"):
            found[name] = COLORS[name.upper()]
        else:
            found[name] = _OWN[others % len(_OWN)]
            others += 1
    return found
