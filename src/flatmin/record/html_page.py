"""Blocks written as one page of HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from flatmin.record.blocks import (
    SIGNS,
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
from flatmin.record.sheet import SHEET


def html_page(title: str, blocks: Sequence[Block]) -> str:
    """Write blocks as a page that needs no other file than its images."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>{SHEET}</style>\n</head>\n"
        f'<body id="top">\n<a class="skip" href="#main">Skip to the results</a>\n'
        f'<main id="main">\n{body}\n</main>\n</body>\n</html>\n'
    )


def _html(block: Block) -> str:
    match block:
        case Heading():
            anchor = f' id="{html.escape(block.anchor)}"' if block.anchor else ""
            back = '<a class="back" href="#top">to the top</a>\n' if block.anchor else ""
            return f"{back}<h{block.level}{anchor}>{_inline(block.text)}</h{block.level}>"
        case Findings():
            lines = "\n".join(
                f"<li>{_inline(text)} {_html_link(item)}</li>" for text, item in block.sentences
            )
            return f'<ol class="findings">\n{lines}\n</ol>'
        case Row():
            return _html_row(block)
        case Paragraph():
            return f"<p>{_inline(block.text)}</p>"
        case Image():
            file = html.escape(block.lines or block.file)
            description = html.escape(block.description)
            return (
                f'<p class="figure"><a href="{file}"><img src="{file}" alt="{description}"></a></p>'
            )
        case Grid():
            return _html_grid(block)


def _html_row(row: Row) -> str:
    kinds = {sign: kind for kind, sign in SIGNS.items()}
    marks = " ".join(f'<span class="mark {kinds[mark[0]]}">{mark}</span>' for mark in row.marks)
    first = ""
    if row.first:
        claim, values, mark = row.first
        said = "; ".join(f"<em>{label}:</em> {_inline(value)}" for label, value in values)
        first = f'\n<span class="first">{_html_mark(mark)} {_inline(claim)}. {said}</span>'
    return (
        f'<details class="item"><summary><strong>{html.escape(row.item)}</strong> '
        f'<span class="title">{_inline(row.title)}</span> '
        f'<span class="marks">{marks}</span>{first}</summary>\n'
        f"{_html_grid(row.claims)}\n<p>{_html_link(row.item, 'figure, numbers and how')}</p>\n"
        "</details>"
    )


def _html_link(item: str, words: str = "") -> str:
    return f'<a href="#{html.escape(item)}">{html.escape(words or item)}</a>'


def _html_grid(grid: Grid) -> str:
    head = "".join(f'<th scope="col">{_inline(name)}</th>' for name in grid.header)
    rows = "\n".join(f"<tr>{''.join(map(_html_cell, grid.header, row))}</tr>" for row in grid.rows)
    table = (
        f'<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )
    title = _inline(grid.title)
    if grid.folded:
        return f"<details><summary>{title}</summary>\n{table}\n</details>"
    return f'<p class="caption">{title}</p>\n{table}' if title else table


def _html_cell(name: str, cell: object) -> str:
    label = f' data-label="{html.escape(name)}"'  # on a phone, where a row is a card
    if isinstance(cell, Mark):
        return f'<td class="verdict"{label}>{_html_mark(cell)}</td>'
    if isinstance(cell, Link):
        return f"<td{label}>{_html_link(cell.item)}</td>"
    number = ' class="number"' if isinstance(cell, int | float) else ""
    return f"<td{number}{label}>{_inline(written(cell))}</td>"


def _html_mark(mark: Mark) -> str:
    return f'<span class="mark {mark.kind}">{mark.words}</span>'


def _inline(text: str) -> str:
    escaped = html.escape(text, quote=False)
    coded = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    strong = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", coded)
    # A star with a space behind it is a product.
    return re.sub(r"(?<![\w*])\*(?! )([^*]+)(?<! )\*(?![\w*])", r"<em>\1</em>", strong)
