"""The landscapes of several networks on the same axes and in the same colors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flatmin.analysis.plane_figure import color_bar, draw_plane, levels_of, numbers
from flatmin.analysis.titles import of_ball
from flatmin.record.style import COLORS, EXACT, letter, subplots, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = (COLORS["SAM"], COLORS["Adam"], COLORS["ASAM"], EXACT, COLORS["SGD"], "#CC79A7")


def several_figure(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw from the records of networks measured in the same ball, on the same data.

    Args:
        records: Each with its landscape.

    Returns:
        A figure: a curve a network along its own steepest direction, then a plane for each.
    """
    rows = -(-len(records) // 2)
    figure, axes = subplots(rows + 1, 2, width=7.4, height=3.3 * (rows + 1))
    grid = axes[0, 0].get_gridspec()
    for ax in axes[0]:
        ax.remove()
    top, planes = figure.add_subplot(grid[0, :]), list(axes[1:].flat)
    _along(top, records)
    levels = levels_of(np.concatenate([numbers(r["landscape"]["plane"]).ravel() for r in records]))
    for k, (ax, record) in enumerate(zip(planes, records, strict=False)):
        filled = draw_plane(ax, record["landscape"], levels, title=_name(record, k))
    color_bar(filled, planes, levels)
    for ax in planes[len(records) :]:
        ax.set_axis_off()
    letter([top, *planes[: len(records)]])
    data = records[0]["data"]
    subject = f"{verbatim(data['source'])}, {data['examples']} examples"
    figure.suptitle(f"{subject}; {of_ball(records[0]['ball'])}", fontsize=9.5)
    return figure


def _along(ax: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    ax.axvspan(-1, 1, color=EXACT, alpha=0.08, lw=0)
    for k, record in enumerate(records):
        land = record["landscape"]
        ax.plot(
            land["line"], numbers(land["first"]), color=_LINES[k % len(_LINES)],
            label=_name(record, k),
        )  # fmt: skip
    ax.set(
        xlabel="distance along the steepest direction, in units of rho",
        ylabel="loss",
        title="Along: the ball is shaded",
        xlim=(land["line"][0], land["line"][-1]),
    )
    ax.legend(loc="upper center")


def _name(record: Mapping[str, Any], k: int) -> str:
    title = verbatim(record["title"])
    return f"{chr(ord('A') + k % 26)}: {title if len(title) < 34 else title[:32] + '…'}"
