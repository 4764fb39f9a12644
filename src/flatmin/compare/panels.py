"""Panels and phrases that comparisons share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flatmin.compare.statistics import Mean, mean, paired, subtract
from flatmin.record.style import COLORS, FAINT, INK, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Columns = Mapping[str, Sequence[Any]]


def color(name: str) -> str:
    """Color of an optimizer: that of the minimizer around it, else its own."""
    kinds = ("ASAM", "SAM", "Adam", "SGD")
    return next(COLORS[kind] for kind in kinds if kind in name)


def subject(record: Mapping[str, Any]) -> str:
    """What a figure is measured on, for its last line."""
    numbers, config = record["numbers"], record["config"]
    return (
        f"{numbers['source']}; {config['model']} ({numbers['parameters']:,} parameters), "
        f"{config['epochs']} epochs, {count(config['seeds'])}"
    )


def caption(figure: Figure, record: Mapping[str, Any]) -> None:
    """Write below a figure what it is measured on."""
    figure.supxlabel(verbatim(subject(record)), fontsize=8.5, color="#555555", x=0.01, ha="left")


def count(seeds: int) -> str:
    """Number of seeds, in words."""
    return f"{seeds} seed{'s' if seeds != 1 else ''}"


def dots(
    ax: Axes, rows: Sequence[tuple[str, str, Sequence[float | None]]], *, hollow: bool = False
) -> None:
    """One row for each (label, color, values by seed): the seeds as dots, the mean as a line.

    Hollow ones lie a little below, where those that equal the others are seen too.
    """
    for place, (_, shade, values) in enumerate(rows):
        known = [value for value in values if value is not None]
        face = "white" if hollow else shade
        height = place + 0.22 * hollow
        ax.plot(known, [height] * len(known), "o", ms=5, mec=shade, mfc=face, alpha=0.75)
        if known and not hollow:
            ax.plot([mean(known).value] * 2, [place - 0.32, place + 0.32], color=shade, lw=2)
    ax.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def intervals(
    ax: Axes, rows: Sequence[tuple[str, str, Sequence[float | None], Sequence[float | None]]]
) -> None:
    """One row for each (label, color, one, other): differences by seed, their mean, 95 % interval.

    An interval that few seeds make wider than the panel goes on to its edge.
    """
    differences = [paired(one, other) for _, _, one, other in rows]
    for place, ((_, shade, one, other), difference) in enumerate(
        zip(rows, differences, strict=True)
    ):
        each = [value for value in subtract(one, other) if value is not None]
        ax.plot(each, [place] * len(each), "o", ms=3.5, color=shade, alpha=0.4)
        if difference.n:
            ax.plot(difference.value, place, "D", ms=6, color=shade, mec="white")
        if difference.n > 1:
            low, high = difference.value - difference.half, difference.value + difference.half
            ax.plot([low, high], [place] * 2, color=shade, lw=1.6)
    ax.set_xlim(_window(rows, differences))
    ax.axvline(0, color=INK, lw=0.9)
    ax.set_yticks(range(len(rows)), [label for label, *_ in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def separate(ax: Axes, places: Sequence[float]) -> None:
    """Thin lines between groups of rows."""
    for place in places:
        ax.axhline(place, color=FAINT, lw=0.8)


def _window(
    rows: Sequence[tuple[str, str, Sequence[float | None], Sequence[float | None]]],
    differences: Sequence[Mean],
) -> tuple[float, float]:
    """Wide enough for every seed, and for intervals up to three times that."""
    each = [value for _, _, one, other in rows for value in subtract(one, other)]
    reach = max((abs(value) for value in each if value is not None), default=1.0)
    ends = [abs(d.value) + d.half for d in differences if d.n > 1]
    reach = min(max([reach, *ends]), 3 * reach) or 1.0
    return -1.08 * reach, 1.08 * reach
