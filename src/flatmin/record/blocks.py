"""Pages as a list of blocks, written as Markdown and as HTML."""

from __future__ import annotations

import html
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
    """Text with ``code`` between backticks and **emphasis** between double stars."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """A picture beside the page."""

    file: str
    description: str


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


Block = Heading | Paragraph | Image | Grid


def markdown(blocks: Sequence[Block]) -> str:
    """Write blocks as Markdown (with GitHub's tables)."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def html_page(title: str, blocks: Sequence[Block]) -> str:
    """Write blocks as a page that needs no other file than its images."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_SHEET}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
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
        case Image():
            return f"![{block.description}]({block.file})"
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
            return f"<h{block.level}{anchor}>{_inline(block.text)}</h{block.level}>"
        case Paragraph():
            return f"<p>{_inline(block.text)}</p>"
        case Image():
            file, description = html.escape(block.file), html.escape(block.description)
            return f'<p><a href="{file}"><img src="{file}" alt="{description}"></a></p>'
        case Grid():
            return _html_grid(block)


def _html_grid(grid: Grid) -> str:
    head = "".join(f"<th>{_inline(name)}</th>" for name in grid.header)
    rows = "\n".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in grid.rows)
    table = (
        f'<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )
    title = _inline(grid.title)
    if grid.folded:
        return f"<details><summary>{title}</summary>\n{table}\n</details>"
    return f'<p class="caption">{title}</p>\n{table}' if title else table


def _html_cell(cell: object) -> str:
    if isinstance(cell, Mark):
        return f'<td><span class="mark {cell.kind}">{cell.words}</span></td>'
    if isinstance(cell, Link):
        return f'<td><a href="#{html.escape(cell.item)}">{html.escape(cell.item)}</a></td>'
    number = ' class="number"' if isinstance(cell, int | float) else ""
    return f"<td{number}>{_inline(written(cell))}</td>"


def _inline(text: str) -> str:
    escaped = html.escape(text, quote=False)
    coded = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", coded)


_SHEET = """
:root { color-scheme: light; --ink: #222; --faint: #6b6b6b; --line: #e2e2e2; --link: #0b5a99; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.25; margin: 0 0 .6rem; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 3.2rem 0 .6rem; padding-top: 1.2rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { margin: .6rem 0; max-width: 46rem; }
p:has(img) { max-width: none; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
img { display: block; max-width: 100%; height: auto; margin: 1rem auto; }
code { font: .88em ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  background: #f4f4f4; border-radius: 3px; padding: .1em .3em; overflow-wrap: anywhere; }
.caption { font-weight: 600; margin-top: 1.6rem; }
.table { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.4; min-width: 50%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0;
  border-bottom: 1px solid var(--line); }
th { color: var(--faint); font-weight: 600; border-bottom-color: #bbb; white-space: nowrap; }
td { overflow-wrap: break-word; }
td.number { font-variant-numeric: tabular-nums; }
.mark { display: inline-block; white-space: nowrap; border-radius: 1rem; padding: 0 .6rem;
  font-size: .8rem; font-weight: 600; }
.holds { background: #e0f2e9; color: #00623f; }
.fails { background: #fbe3d8; color: #9a3c00; }
.open { background: #efefef; color: #555; }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--faint); font-size: .875rem; }
"""
