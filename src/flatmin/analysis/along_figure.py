"""A measure over the steps of a training, from plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flatmin.record.style import COLORS, EXACT, band, letter, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def along_figure(about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw a measure and the loss, one above the other.

    Args:
        about: ``measure``, ``text``, ``scale`` and ``examples``.
        rows: ``step``, the measure by its name, maybe its error, and ``loss``.

    Returns:
        A figure.

    Raises:
        ValueError: If there are no rows.
    """
    if not rows:
        raise ValueError("nothing was measured yet; train for as many steps as `every` says.")
    name = about["measure"]
    figure, axes = subplots(2, 1, width=6.4, height=5.4, sharex=True)
    upper, lower = axes[:, 0]
    steps = [row["step"] for row in rows]
    values = np.array([row[name] for row in rows], dtype=float)
    marker = {"marker": "o", "ms": 3.5} if len(rows) < 60 else {}
    upper.plot(steps, values, color=EXACT, **marker)
    if f"{name}_error" in rows[0]:
        errors = np.array([row[f"{name}_error"] for row in rows], dtype=float)
        band(upper, steps, list(values - errors), list(values + errors), EXACT)
    unit = "" if about["scale"] == "T = 1" else ", in units of the loss"
    upper.set(ylabel=f"{name}{unit}", title=f"{name}, {about['scale']}")
    lower.plot(steps, np.array([row["loss"] for row in rows], float), color=COLORS["SGD"], **marker)
    lower.set(
        xlabel="step",
        ylabel="loss",
        title=f"Loss on the {about['examples']} examples that are measured",
    )
    for ax in (upper, lower):
        _by_ratio(ax)
    letter([upper, lower])
    return figure


def _by_ratio(ax: Axes) -> None:
    """Axes of equal ratio for what spans more than a factor of twenty."""
    shown = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.lines])
    shown = shown[np.isfinite(shown)]
    if len(shown) and shown.min() > 0 and shown.max() / shown.min() > 20:
        ax.set_yscale("log")
