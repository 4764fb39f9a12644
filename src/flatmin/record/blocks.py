"""What a page is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading; ``anchor`` is what links of the HTML page point to."""

    text: str
    level: int = 2
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text with ``code`` between backticks, *emphasis* between stars, and **more** between two."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """A picture beside the page; HTML shows its lines, where there are any."""

    file: str
    description: str
    lines: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found, a sentence each, with the items that show it."""

    sentences: Sequence[tuple[str, str]]
    """Sentences and the names of their items."""


@dataclass(frozen=True, slots=True)
class Link:
    """A cell that leads to an item: to its section in HTML, to its page in Markdown."""

    item: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A cell that says whether a claim holds; None where it cannot be judged."""

    holds: bool | None

    @property
    def words(self) -> str:
        """The mark in words."""
        return {True: "✓ holds", False: "✗ does not hold", None: "– not judged"}[self.holds]

    @property
    def kind(self) -> str:
        """The mark as a class of the style sheet."""
        return {True: "holds", False: "fails", None: "open"}[self.holds]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; a folded one is closed at first in HTML."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """An item and its first claim, with values; in HTML it opens to all."""

    item: str
    title: str
    claims: Grid
    first: tuple[str, Sequence[tuple[str, str]], Mark] | None = None
    """The first claim, what it is in the report and here, each with its label, and the verdict."""

    @property
    def marks(self) -> list[str]:
        """How many claims are of each kind, such as ``✓ 3``; kinds without a claim are left out."""
        kinds = [cell.kind for row in self.claims.rows for cell in row if isinstance(cell, Mark)]
        return [f"{SIGNS[kind]} {kinds.count(kind)}" for kind in SIGNS if kind in kinds]


SIGNS = {"holds": "✓", "fails": "✗", "open": "–"}

Block = Heading | Paragraph | Findings | Image | Grid | Row


def written(value: object, digits: int = 4) -> str:
    """A value as a reader wants it: few digits, commas in thousands, else short powers of ten."""
    if value is None:
        return "–"
    if isinstance(value, float):
        rounded = float(f"{value:.{digits}g}")
        if 1000 <= abs(rounded) < 1e6:
            return f"{rounded:,.0f}"
        return re.sub(r"e([+-])0*", lambda m: "e" + m[1].strip("+"), f"{rounded:.{digits}g}")
    if isinstance(value, list | tuple):
        return ", ".join(written(part, digits) for part in value)
    return str(value)
