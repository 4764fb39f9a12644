"""What an item of a report is: a claim, how it is computed and drawn, and the verdicts on it.

An item is a file ``<item>_<content>.py`` in a wing of ``experiments``. Its docstring has the title
in the first line and the claim in the paragraph that starts with "Claim:". It defines ``Config`` (a
frozen dataclass), ``FULL`` and ``QUICK``, and the functions of :class:`Experiment`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Verdict:
    """A sentence of the report, its value there and here, and whether it holds here.

    Attributes:
        claim: What is judged, one sentence.
        reported: What the report says or shows; empty where it says nothing.
        measured: What was measured here, or why it cannot be judged.
        holds: Whether the claim holds here; None where it cannot be judged.
        controlled: The same two under control, where ``measured`` is as the report measured.
        own: Whether the claim is a question of ours, and no sentence of the report.
    """

    claim: str
    reported: str
    measured: str
    holds: bool | None
    controlled: tuple[str, bool | None] | None = None
    own: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a page; numbers are shown with four digits, texts as they are."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]


class Experiment(Protocol):
    """What an item defines; ``answer``, ``finding``, ``tables`` and ``notes`` may be left out.

    Its configuration may name in ``shares`` folders beside the results in which several
    items keep parts that they all need.
    """

    FULL: Any
    QUICK: Any

    def run(self, config: Any, scratch: Path) -> dict[str, Any]:
        """Compute plain JSON values; ``scratch`` may hold finished parts of a long run."""

    def draw(self, record: dict[str, Any]) -> Figure:
        """Draw the figure from a stored record alone."""

    def check(self, record: dict[str, Any]) -> list[Verdict]:
        """Judge the claims from a stored record alone; the first one stands for the item."""

    def answer(self, record: dict[str, Any]) -> str:
        """Say in plain words what the figure shows, with its numbers; else it is the finding."""

    def finding(self, record: dict[str, Any]) -> str:
        """Say what was found in one sentence with its number, for the head of the page of all."""

    def tables(self, record: dict[str, Any]) -> list[Table]:
        """Give tables for the page."""

    def notes(self, record: dict[str, Any]) -> list[str]:
        """Give paragraphs for the page, below the figure."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the report: its name, where it is computed, and what its docstring says."""

    name: str
    module: str
    title: str
    claim: str

    def load(self) -> Experiment:
        """Import the file of the item."""
        return cast("Experiment", importlib.import_module(self.module))
