"""A look as one page of HTML, and a figure as the bytes of a picture."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flatmin.analysis.measuring import MEASURES
from flatmin.analysis.several_table import cells, several_table
from flatmin.analysis.table import heading, remarks
from flatmin.record.blocks import Block, Grid, Heading, Image, Paragraph, written
from flatmin.record.html_page import html_page
from flatmin.record.page import origin_rows
from flatmin.record.pictures import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def html_of(record: Mapping[str, Any], picture: Figure | None) -> str:
    """Write a page that needs no other file.

    Args:
        record: That of a look.
        picture: Its landscape.

    Returns:
        The page.
    """
    about = heading(record).split("\n\n")[0].splitlines()
    blocks: list[Block] = [Heading(record["title"], 1), *map(Paragraph, about[1:])]
    blocks += [Paragraph(f"{record['network']['parameters']:,} parameters"), _rows(record)]
    blocks += [Paragraph(sentence) for sentence in remarks(record).splitlines() if sentence]
    blocks += _ending(record, picture, "Loss along and around the steepest direction")
    return html_page(record["title"], blocks)


def html_of_several(records: Sequence[Mapping[str, Any]], picture: Figure | None) -> str:
    """Write a page of several networks that needs no other file.

    Args:
        records: Those of networks measured in the same ball, on the same data.
        picture: Their landscapes.

    Returns:
        The page.
    """
    about, _, _ = several_table(records).partition("\n\n")
    title = ", ".join(record["title"] for record in records)
    header, *rows = cells(records)
    blocks: list[Block] = [Heading("Side by side", 1), *map(Paragraph, about.splitlines())]
    blocks.append(Grid(header, rows, "In units of the loss for T = |w|"))
    blocks += _ending(records[0], picture, "Losses along and around the steepest directions")
    return html_page(title, blocks)


def _ending(record: Mapping[str, Any], picture: Figure | None, description: str) -> list[Block]:
    """The figure, and what a page says of how its numbers were made."""
    blocks: list[Block] = []
    if picture is not None:
        file = f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"
        blocks += [Heading("Landscape"), Image(file, description)]
    named = {row["measure"] for row in record["rows"]}
    texts = [(name, text) for name, text in MEASURES.items() if name in named]
    blocks.append(Grid(("measure", "what it is"), texts, "The measures", folded=True))
    options = list(record["config"].items())
    blocks.append(Grid(("option", "value"), options, "Options", folded=True))
    origin = origin_rows(record["provenance"])
    blocks.append(Grid(("", ""), origin, "Where this comes from", folded=True))
    return blocks


def _rows(record: Mapping[str, Any]) -> Grid:
    header = ("measure", "ball", "value", "± error", "spread over rescaled copies")
    keys = ("value", "standard_error", "spread")
    rows = [
        [row["measure"], row["scale"], *(written(row[key], 3) for key in keys)]
        for row in record["rows"]
    ]
    return Grid(header, rows, "In units of the loss for T = |w|")
