"""Pages as a list of blocks, written as Markdown and as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from flatmin.record.sheet import SHEET


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
    """An item in one line that opens to its claims in HTML; in Markdown the line alone."""

    item: str
    title: str
    claims: Grid

    @property
    def marks(self) -> list[str]:
        """How many claims are of each kind, such as ``✓ 3``; kinds without a claim are left out."""
        kinds = [cell.kind for row in self.claims.rows for cell in row if isinstance(cell, Mark)]
        return [f"{_SIGNS[kind]} {kinds.count(kind)}" for kind in _SIGNS if kind in kinds]


_SIGNS = {"holds": "✓", "fails": "✗", "open": "–"}

Block = Heading | Paragraph | Findings | Image | Grid | Row


def markdown(blocks: Sequence[Block]) -> str:
    """Write blocks as Markdown (with GitHub's tables)."""
    parts = [_markdown(block) for block in blocks]
    return re.sub(r"(?m)(^- .*\n)\n(?=- )", r"\1", "\n\n".join(parts)) + "\n"


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
            return f"- [{block.item}]({block.item}.md) {block.title}: {', '.join(block.marks)}"
        case Grid():
            rows = [block.header, ["---"] * len(block.header), *block.rows]
            lines = [f"| {' | '.join(map(_markdown_cell, row))} |" for row in rows]
            return "\n".join([f"**{block.title}**\n"] * bool(block.title) + lines)


def _markdown_cell(cell: object) -> str:
    if isinstance(cell, Mark):
        return cell.words
    if isinstance(cell, Link):
        return f"[{cell.item}]({cell.item}.md)"
    return written(cell).replace("|", "\\|").replace("\n", " ")


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
    kinds = {sign: kind for kind, sign in _SIGNS.items()}
    marks = " ".join(f'<span class="mark {kinds[mark[0]]}">{mark}</span>' for mark in row.marks)
    return (
        f'<details class="item"><summary><strong>{html.escape(row.item)}</strong> '
        f'<span class="title">{_inline(row.title)}</span> {marks}</summary>\n'
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
        return f'<td class="verdict"{label}><span class="mark {cell.kind}">{cell.words}</span></td>'
    if isinstance(cell, Link):
        return f"<td{label}>{_html_link(cell.item)}</td>"
    number = ' class="number"' if isinstance(cell, int | float) else ""
    return f"<td{number}{label}>{_inline(written(cell))}</td>"


def _inline(text: str) -> str:
    escaped = html.escape(text, quote=False)
    coded = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    strong = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", coded)
    # A star with a space behind it is a product.
    return re.sub(r"(?<![\w*])\*(?! )([^*]+)(?<! )\*(?![\w*])", r"<em>\1</em>", strong)
