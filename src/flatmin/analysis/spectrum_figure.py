"""The figure of a spectral density, from its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flatmin.analysis.titles import about
from flatmin.record.blocks import written
from flatmin.record.style import EXACT, INK, band, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DECADES = 6  # shown below the highest density


def spectrum_figure(record: Mapping[str, Any], found: Mapping[str, Any]) -> Figure:
    """Draw a density with a band of one standard error.

    Args:
        record: That of the look.
        found: What ``spectrum`` gave.

    Returns:
        A figure.
    """
    figure, axes = subplots(1, 1, width=6.4, height=4.6)
    ax = axes[0, 0]
    density, error = np.array(found["density"]), np.array(found["error"])
    floor = density.max() * 10.0**-_DECADES
    shown = np.where(density > floor, density, np.nan)
    at = found["eigenvalues"]
    ax.plot(at, shown, color=EXACT, label=f"mean of {found['samples']} random vectors")
    low, high = np.maximum(density - error, floor), np.maximum(density + error, floor)
    band(ax, at, list(low), list(high), EXACT)
    ends = [found["lowest"], found["highest"]]
    label = f"smallest and largest found: {written(ends[0], 3)}, {written(ends[1], 3)}"
    ax.plot(ends, [floor] * 2, "^", color=INK, ms=5, clip_on=False, zorder=3, label=label)
    unit = "per squared unit of a parameter" if _is_plain(record) else "in units of the loss"
    trace = f"trace {written(found['trace'], 3)} ± {written(found['trace_error'], 2)}"
    ax.set(
        xlabel=f"eigenvalue of T H T, {unit}",
        ylabel="density, each eigenvalue a share of 1",
        title=f"{found['dimension']:,} eigenvalues, {trace}",
        yscale="log",
        ylim=(floor, density.max() * 4),
    )
    ax.legend(loc="upper right")
    text = about(record, ball=False)
    figure.suptitle(f"{text}, {record['ball']['scale']}; band: one standard error", fontsize=9.5)
    return figure


def _is_plain(record: Mapping[str, Any]) -> bool:
    return bool(record["ball"]["scale"] == "T = 1")
