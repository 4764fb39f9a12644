"""The figure of filter-normalized planes, from their record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flatmin.analysis.plane_figure import color_bar, draw_plane, levels_of, numbers
from flatmin.analysis.titles import about
from flatmin.record.style import letter, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def filter_figure(record: Mapping[str, Any], planes: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the plane of a network and that of a rescaled copy, in the same colors.

    Args:
        record: That of the look.
        planes: What ``filter_planes`` gave.

    Returns:
        A figure.
    """
    figure, axes = subplots(len(planes), 1, width=6.4, height=4.6 * len(planes) + 0.6)
    flat = list(axes[:, 0])
    levels = levels_of(np.concatenate([numbers(plane["plane"]).ravel() for plane in planes]))
    titles = ("The network", "A rescaled copy: the same function")
    for ax, plane, title in zip(flat, planes, titles, strict=False):
        filled = draw_plane(
            ax, dict(plane), levels, title=title, edge=False,
            across="first random direction, in lengths of filters", up="second",
        )  # fmt: skip
    color_bar(filled, flat, levels)
    letter(flat)
    figure.suptitle(
        f"{about(record, ball=False)}\n"
        "filter-normalized as in Li et al. 2018: rescaling the network changes the picture",
        fontsize=9.5,
    )
    return figure
