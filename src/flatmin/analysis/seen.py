"""What a look at a network gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatmin.analysis.page import html_of
from flatmin.analysis.pictures import Pictures
from flatmin.analysis.subject import Subject
from flatmin.analysis.table import measure_table
from flatmin.ball import Ball
from flatmin.objective import EmpiricalLoss
from flatmin.record.files import write_atomically


@dataclass(frozen=True, eq=False, repr=False)
class Look(Pictures):
    """A network looked at; prints as a table.

    Attributes:
        record: Everything as plain values, as ``flatmin measure`` writes it into ``measure.json``.
        subject: The copy of the network that was measured, its data and its loss.
        ball: The neighbourhood.

    Example:
        >>> import torch
        >>> from flatmin.analysis import look
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> data = torch.ones(2, 1), torch.zeros(2, 1)
        >>> found = look(model, data, measures=["trace"], samples=2)
        >>> found.errors  # signs cannot err about a single number
        {'trace': 0.0}
    """

    record: dict[str, Any]
    subject: Subject
    ball: Ball

    @property
    def title(self) -> str:
        """What the network is called."""
        return str(self.record["title"])

    @property
    def loss(self) -> float:
        """The loss at the network, in nats an example for cross-entropy."""
        return float(self.record["loss"])

    @property
    def objective(self) -> EmpiricalLoss:
        """The loss as a function of the parameters, for any other measure."""
        return self.subject.objective()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a measure and ball, with value, error, cost, spread over copies, and warnings."""
        return list(self.record["rows"])

    @property
    def numbers(self) -> dict[str, float | None]:
        """Measures to their values in ``ball``, in units of the loss; None if not finite."""
        return self._column("value")

    @property
    def errors(self) -> dict[str, float | None]:
        """Measures to their standard errors, in the same unit; None where nothing is random."""
        return self._column("standard_error")

    @property
    def spreads(self) -> dict[str, float | None]:
        """Measures to ``(max − min) / |mean|`` over rescaled copies; None where there are none."""
        return self._column("spread")

    @property
    def certificate(self) -> dict[str, Any]:
        """On how many copies, of how many units, the spread is; or the reason why on none."""
        return dict(self.record["certificate"])

    def save_html(self, path: Path | str) -> None:
        """Write one page with the table, the landscape if it was drawn, and where all comes from.

        Args:
            path: The file; one that is there is replaced.
        """
        land = self.record["landscape"]
        picture = self.plot_landscape(grid=len(land["grid"])) if land else None
        write_atomically(Path(path), html_of(self.record, picture))

    def __repr__(self) -> str:
        return measure_table(self.record)

    def _column(self, key: str) -> dict[str, float | None]:
        scale = self.record["ball"]["scale"]
        return {r["measure"]: r[key] for r in self.record["rows"] if r["scale"] == scale}
