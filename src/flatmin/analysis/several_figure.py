"""The landscapes of several networks on the same axes and in the same colors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flatmin.analysis.plane_figure import draw_plane, levels_of, numbers
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
    count = len(records) + 1
    columns = 2 if count <= 4 else 3
    rows = -(-count // columns)
    figure, axes = subplots(rows, columns, width=5.2 * columns, height=4.3 * rows)
    flat = list(axes.flat)
    _along(flat[0], records)
    losses = np.concatenate([numbers(r["landscape"]["plane"]).ravel() for r in records])
    levels = levels_of(losses)
    for k, (ax, record) in enumerate(zip(flat[1:], records, strict=False)):
        draw_plane(ax, record["landscape"], levels, title=_name(record, k))
    for ax in flat[count:]:
        ax.set_axis_off()
    letter(flat[:count])
    ball, data = records[0]["ball"], records[0]["data"]
    order = "∞" if ball["p"] == "inf" else ball["p"]
    figure.suptitle(
        f"{verbatim(data['source'])}, {data['examples']} examples; "
        f"{ball['scale']}, rho = {ball['rho']:g}, p = {order}",
        fontsize=9.5,
    )
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
    return f"{chr(ord('A') + k % 26)}: {title if len(title) < 40 else title[:38] + '…'}"
