"""Maps of the best optimizer, over the variances of training and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flatmin.experiments.toy._criterion import MEASURES, NAMES
from flatmin.record.style import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def maps(record: dict[str, Any]) -> Figure:
    """Draw a map for each setting and measure of a record."""
    from matplotlib.figure import Figure

    numbers, variances = record["numbers"], record["config"]["variances"]
    settings = list(numbers["comparisons"])
    figure = Figure(
        figsize=(10, len(settings) * (0.27 * len(variances) + 0.9) + 0.7), layout="constrained"
    )
    axes = figure.subplots(len(settings), 2, squeeze=False, sharex=True, sharey=True)
    for row, setting in zip(axes, settings, strict=True):
        for ax, measure in zip(row, MEASURES, strict=True):
            comparison = numbers["comparisons"][setting][measure]
            draw_map(ax, comparison, variances, numbers["test_variances"])
            ax.set_title(f"{measure}: {setting}")
        row[0].set_ylabel("trained at")
    for ax in axes[-1]:
        ax.set_xlabel("variance of the test set")
    figure.legend(handles=map_legend(), loc="outside lower center", ncols=5)
    return figure


def draw_map(
    ax: Axes, comparison: dict[str, Any], trained: Sequence[float], tested: Sequence[float]
) -> None:
    """One row per training variance, one color per optimizer, pale and hatched where undecided."""
    from matplotlib.colors import to_rgb

    step = tested[1] - tested[0]
    for row, variance in enumerate(trained):
        best, clear = comparison["best"][row], comparison["clear"][row]
        start = 0
        for end in range(1, len(best) + 1):
            if end < len(best) and (best[end], clear[end]) == (best[start], clear[start]):
                continue
            color = np.array(to_rgb(COLORS[NAMES[best[start]]]))
            ax.barh(
                row,
                (end - start) * step,
                left=tested[start] - step / 2,
                height=0.86,
                color=color if clear[start] else 1 - 0.25 * (1 - color),
                edgecolor="white",
                linewidth=0,
                hatch=None if clear[start] else "////",
            )
            start = end
        ax.plot([variance] * 2, [row - 0.43, row + 0.43], color="black", lw=1.6)
    ax.set_yticks(range(len(trained)), [f"{variance:g}" for variance in trained])
    ax.set(xlim=(tested[0] - step / 2, tested[-1] + step / 2), ylim=(-0.55, len(trained) - 0.45))
    ax.grid(False)


def map_legend() -> list[Any]:
    """What the colors of a map mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        *(Patch(color=COLORS[name], label=f"{name} is best") for name in NAMES),
        Patch(facecolor="#E4E4E4", edgecolor="white", hatch="////", label="ahead, but undecided"),
        Line2D([], [], color="black", lw=1.6, label="variance of training"),
    ]
