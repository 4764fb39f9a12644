"""The figure of a trajectory, from its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flatmin.analysis.plane_figure import color_bar, fill_plane, levels_of, numbers
from flatmin.analysis.titles import about
from flatmin.record.style import EXACT, INK, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def trajectory_figure(record: Mapping[str, Any], found: Mapping[str, Any]) -> Figure:
    """Draw checkpoints in their plane.

    Args:
        record: That of the look.
        found: What ``trajectory`` gave.

    Returns:
        A figure.
    """
    figure, axes = subplots(1, 1, width=6.4, height=5.0)
    ax = axes[0, 0]
    levels = levels_of(numbers(found["plane"]))
    filled = fill_plane(ax, found["x"], found["y"], found["plane"], levels)
    color_bar(filled, ax, levels)
    path = np.array(found["path"])
    ax.plot(*path.T, "o-", color=EXACT, ms=4, lw=1.4, mec="white", mew=0.6, label="checkpoints")
    ax.plot(*path[0], "o", color="white", mec=EXACT, ms=7, zorder=3, label="the first of them")
    ax.plot(0, 0, "o", color=INK, ms=6, zorder=3, label="the network looked at")
    one, two = (f"{100 * share:.1f} %" for share in found["explained"])
    ax.set(
        xlabel=f"first component ({one} of the squares), parameter units",
        ylabel=f"second component ({two})",
        title=f"{len(path)} checkpoints where they spread most",
        aspect="equal",
    )
    ax.grid(visible=False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    text = about(record, ball=False)
    figure.suptitle(
        f"{text}\nrescaling the networks changes the picture; a random walk looks smooth too",
        fontsize=9.5,
    )
    return figure
