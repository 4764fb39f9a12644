"""The figure of a measure layer by layer, from its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flatmin.analysis.titles import about
from flatmin.record.style import EXACT, subplots, verbatim

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def layers_figure(
    record: Mapping[str, Any], name: str, found: Sequence[Mapping[str, Any]]
) -> Figure:
    """Draw a point a layer, the first layer on top, with standard errors where there are any.

    Args:
        record: That of the look.
        name: The measure.
        found: What ``layers`` gave.

    Returns:
        A figure.
    """
    figure, axes = subplots(1, 1, width=6.4, height=1.7 + 0.27 * len(found))
    ax = axes[0, 0]
    places = range(len(found))
    values = np.array([one["value"] for one in found], dtype=float)
    errors = np.array([one["standard_error"] or 0.0 for one in found], dtype=float)
    ax.errorbar(values, places, xerr=errors, fmt="o", color=EXACT, ms=5, capsize=2, lw=1.2)
    ax.set_yticks(
        list(places), [f"{verbatim(one['layer'])} ({one['parameters']:,})" for one in found]
    )
    ax.set_ylim(len(found) - 0.4, -0.6)
    known = values[np.isfinite(values)]
    if len(known) and known.min() > 0 and known.max() / known.min() > 20:
        ax.set_xscale("log")
    else:
        ax.axvline(0, color="#8C8C8C", lw=0.8, zorder=0)
    plain = record["ball"]["scale"] == "T = 1"
    ax.set(
        xlabel=f"{name} of the layer alone" + ("" if plain else ", in units of the loss"),
        title=f"{name}, layer by layer (number of parameters)",
    )
    figure.suptitle(about(record), fontsize=9.5)
    return figure
