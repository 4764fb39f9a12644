"""The figure of the grid of networks: who lies flatter, and which measure tells what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flatmin.experiments.toy._beside import NEAR
from flatmin.experiments.toy._flatness import IDENTITY, INVARIANT, MEASURES, PUBLISHED, SCALES
from flatmin.experiments.toy._ranking import COPIES, EQUAL, SAME, TARGETS
from flatmin.record.style import COLORS, EXACT, INK, letter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OF_SCALE = {
    IDENTITY: (COLORS["SAM"], "o"),
    PUBLISHED: (COLORS["ASAM"], "s"),
    INVARIANT: (EXACT, "D"),
}
_APART = 0.24  # between the marks of a row


def panels(numbers: dict[str, Any]) -> Figure:
    """Three rows: flatter than Adam; τ, also of the copies; τ at equal training loss."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 11.5), layout="constrained")
    axes = figure.subplots(3, 3, sharey=True)
    for ax, scale in zip(axes[0], SCALES, strict=True):
        _flatter(ax, numbers, scale)
        ax.set_title(f"lies flatter, {scale}")
    for row, scope in ((axes[1], SAME), (axes[2], EQUAL)):
        for ax, target in zip(row, TARGETS, strict=True):
            _tau(ax, numbers["tau"], scope, target)
            ax.set_title(target if scope == SAME else f"{target},\ntraining losses within {NEAR:g}")
    letter(axes.flat)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[0, 0].legend(handles, labels, loc="upper left", fontsize=7.5, handletextpad=0.2)
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _rows(ax: Axes) -> None:
    ax.set_yticks(range(len(MEASURES)), MEASURES)
    ax.set_ylim(len(MEASURES) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def _flatter(ax: Axes, numbers: dict[str, Any], scale: str) -> None:
    ways = [way for way in numbers["ways"] if way != "Adam"]
    for k, way in enumerate(ways):
        shares = [numbers["ways"][way]["flatter"][f"{m} | {scale}"]["share"] for m in MEASURES]
        color = COLORS[way.split()[0]]
        places = [row + _APART * (k - (len(ways) - 1) / 2) * 0.8 for row in range(len(MEASURES))]
        last = way == [w for w in ways if w.split()[0] == way.split()[0]][-1]
        ax.errorbar(
            [100 * v for v, _ in shares],
            places,
            xerr=[100 * h for _, h in shares],
            fmt="o",
            ms=4.5,
            color=color,
            mfc=color if last else "white",
            lw=1.2,
            label=f"{way.split()[0]}, ρ = {way.split()[1]}",
        )
    ax.axvline(50, color=INK, lw=0.8, ls=":")
    ax.set(xlim=(0, 103), xlabel="% of pairs flatter than Adam")
    _rows(ax)


def _tau(ax: Axes, tau: dict[str, Any], scope: str, target: str) -> None:
    for k, (scale, (color, marker)) in enumerate(OF_SCALE.items()):
        places = [row + _APART * (k - 1) for row in range(len(MEASURES))]
        rows = [tau[scope][target][f"{measure} | {scale}"] for measure in MEASURES]
        ax.errorbar(
            [float("nan") if v is None else v for v, _ in rows],
            places,
            xerr=[h or 0.0 for _, h in rows],
            fmt=marker,
            ms=4.5,
            color=color,
            lw=1.2,
            label=scale,
        )
        if scope == SAME:
            copies = [tau[COPIES][target][f"{measure} | {scale}"] for measure in MEASURES]
            ax.plot(
                [v for v, _ in copies],
                places,
                "|",
                ms=9,
                mew=1.6,
                color=color,
                label="rescaled copies" if scale == INVARIANT else None,
            )
    ax.axvline(0, color=INK, lw=0.8, ls=":")
    ax.set_xlabel("Kendall's τ")
    _rows(ax)
