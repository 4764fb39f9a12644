"""One look for all figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Distinct for the color-blind too (Okabe and Ito 2008). Adam is blue as in the report.
COLORS = {"Adam": "#0072B2", "SAM": "#D55E00", "ASAM": "#009E73", "SGD": "#595959"}
EXACT = "#8A4FA3"  # T = |w| on weights and biases with eta = 0: the answer to the report's question
INK, FAINT = "#222222", "#B8B8B8"

# Any: matplotlib types the keys as literals of its present version.
_RC: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 200,  # twice the size at which a page shows them, for dense screens
    "figure.facecolor": "white",
    "svg.hashsalt": "flatmin",  # names in the file that are the same each time
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8C8C8C",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "text.color": INK,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw inside this context; a page does so around every ``draw``."""
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise ImportError('Figures need matplotlib: pip install "flatmin[experiments]".') from error
    with rc_context(_RC):
        yield


def subplots(
    rows: int = 1, columns: int = 1, *, width: float = 8.0, height: float = 4.0, **options: Any
) -> tuple[Figure, np.ndarray[Any, Any]]:
    """A figure and its axes, always in an array [rows, columns]; sizes in inches.

    ``options`` are those of ``Figure.subplots``, such as ``sharex`` and ``sharey``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def verbatim(text: str) -> str:
    r"""Names of files and functions as a figure can show them: dollars are no formula there.

    Example:
        >>> print(verbatim("w\udcff of $5"))
        w\udcff of \$5
    """
    return text.encode(errors="backslashreplace").decode().replace("$", r"\$")


def letter(axes: Iterable[Axes]) -> None:
    """Put (a), (b), … before the titles."""
    for index, ax in enumerate(axes):
        ax.set_title(f"({chr(ord('a') + index)}) {ax.get_title(loc='left')}", loc="left")


def band(
    ax: Axes, x: Sequence[float], low: Sequence[float], high: Sequence[float], color: str
) -> None:
    """Shade between two curves; None, which is how a record writes NaN, leaves a gap."""
    ax.fill_between(
        np.array(x, dtype=float),
        np.array(low, dtype=float),
        np.array(high, dtype=float),
        color=color,
        alpha=0.15,
        linewidth=0,
    )
