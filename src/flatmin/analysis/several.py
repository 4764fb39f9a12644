"""Two and more networks side by side: in the same ball, on the same data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.analysis.page import html_of_several
from flatmin.analysis.seen import Look
from flatmin.analysis.several_figure import several_figure
from flatmin.analysis.several_table import several_table
from flatmin.record.files import write_atomically
from flatmin.record.style import house_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class SideBySide:
    """Networks that were looked at in the same way; prints as a table, a column a network.

    Attributes:
        looks: The networks.

    Example:
        >>> import torch
        >>> from flatmin.analysis import look, side_by_side
        >>> data = torch.ones(1, 1), torch.zeros(1, 1)
        >>> models = [torch.nn.Linear(1, 1, bias=False) for _ in range(2)]
        >>> for model, weight in zip(models, (1.0, 2.0)):
        ...     _ = torch.nn.init.constant_(model.weight, weight)
        >>> both = side_by_side(*(look(model, data, measures=["one-step"]) for model in models))
        >>> both.numbers  # (3 w / 2)² − w²
        {'one-step': (1.25, 5.0)}
    """

    looks: tuple[Look, ...]

    @property
    def records(self) -> list[dict[str, Any]]:
        """What each look has recorded, as plain values."""
        return [look.record for look in self.looks]

    @property
    def numbers(self) -> dict[str, tuple[float | None, ...]]:
        """Measures to the value of each network, in units of the loss."""
        return self._columns([look.numbers for look in self.looks])

    @property
    def errors(self) -> dict[str, tuple[float | None, ...]]:
        """Measures to the standard error of each, in the same unit; None where none is random."""
        return self._columns([look.errors for look in self.looks])

    def plot_landscapes(self, *, grid: int = 21) -> Figure:
        """Draw the landscapes of all, on the same axes and in the same colors.

        Args:
            grid: Points on each axis.

        Returns:
            A figure of matplotlib.
        """
        for look in self.looks:
            look.plot_landscape(grid=grid)
        with house_style():
            return several_figure(self.records)

    def save_html(self, path: Path | str) -> None:
        """Write one page with the table, the landscapes if they were drawn, and where all is from.

        Args:
            path: The file; one that is there is replaced.
        """
        lands = [record["landscape"] for record in self.records]
        drawn = all(lands) and len({len(land["grid"]) for land in lands}) == 1
        picture = self.plot_landscapes(grid=len(lands[0]["grid"])) if drawn else None
        write_atomically(Path(path), html_of_several(self.records, picture))

    def __repr__(self) -> str:
        return several_table(self.records)

    def _columns(
        self, each: Sequence[Mapping[str, float | None]]
    ) -> dict[str, tuple[float | None, ...]]:
        return {name: tuple(column[name] for column in each) for name in each[0]}


def side_by_side(*looks: Look) -> SideBySide:
    """Put networks side by side that were looked at in the same ball, on the same data.

    Args:
        *looks: What ``look`` gave, two or more.

    Returns:
        Their numbers in one table, their landscapes in one figure.

    Raises:
        ValueError: If ball, data, loss, measures or effort differ: the numbers could not be
            compared.

    Example:
        >>> import torch
        >>> from flatmin.analysis import look
        >>> model, data = torch.nn.Linear(1, 1), (torch.ones(1, 1), torch.zeros(1, 1))
        >>> one, other = (look(model, data, measures=[name]) for name in ("trace", "average"))
        >>> side_by_side(one, other)
        Traceback (most recent call last):
        ValueError: networks are compared by the same measures, got trace and average.
    """
    if len(looks) < 2:
        raise ValueError(f"it takes two looks to compare, got {len(looks)}.")
    require_alike([look.record for look in looks])
    return SideBySide(looks)


def require_alike(records: Sequence[Mapping[str, Any]]) -> None:
    """Refuse records whose numbers cannot be compared.

    Args:
        records: As in ``measure.json``.

    Raises:
        ValueError: If one was made in another way than the first.
    """
    aspects: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "in the same ball": lambda r: ", ".join(f"{k} {v}" for k, v in r["ball"].items()),
        "on the same data": lambda r: f"{r['data']['examples']} examples {r['data']['digest']}",
        "with the same loss": lambda r: str(r["loss_function"]),
        "by the same measures": lambda r: ", ".join(dict.fromkeys(_measures(r))),
        "with the same effort": lambda r: ", ".join(
            f"{key} {r['config'][key]}" for key in ("steps", "samples", "seed", "precision")
        ),
    }
    for aspect, of in aspects.items():
        first, *others = (of(record) for record in records)
        for other in others:
            if other != first:
                raise ValueError(f"networks are compared {aspect}, got {first} and {other}.")


def _measures(record: Mapping[str, Any]) -> list[str]:
    return [row["measure"] for row in record["rows"]]
