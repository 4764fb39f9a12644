"""Blocks written as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flatmin.record.blocks import (
    Block,
    Findings,
    Grid,
    Heading,
    Image,
    Link,
    Mark,
    Paragraph,
    Row,
    written,
)


def markdown(blocks: Sequence[Block]) -> str:
    """Write blocks as Markdown (with GitHub's tables)."""
    parts = [_markdown(block) for block in blocks]
    return re.sub(r"(?m)(^ *- .*\n)\n(?=- )", r"\1", "\n\n".join(parts)) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {block.text}"
        case Paragraph():
            return block.text
        case Findings():
            return "\n".join(
                f"{i}. {text} [{item}]({item}.md)"
                for i, (text, item) in enumerate(block.sentences, 1)
            )
        case Image():
            return f"![{block.description}]({block.file})"
        case Row():
            return _markdown_row(block)
        case Grid():
            rows = [block.header, ["---"] * len(block.header), *block.rows]
            lines = [f"| {' | '.join(map(_markdown_cell, row))} |" for row in rows]
            return "\n".join([f"**{block.title}**\n"] * bool(block.title) + lines)


def _markdown_row(row: Row) -> str:
    line = f"- [{row.item}]({row.item}.md) {row.title}: {', '.join(row.marks)}"
    if row.first is None:
        return line
    claim, values, mark = row.first
    said = "; ".join(f"{label}: {value}" for label, value in values)
    return f"{line}\n  - {mark.words}: {claim}. {said}"


def _markdown_cell(cell: object) -> str:
    if isinstance(cell, Mark):
        return cell.words
    if isinstance(cell, Link):
        return f"[{cell.item}]({cell.item}.md)"
    return written(cell).replace("|", "\\|").replace("\n", " ")
