"""The page of an item and the page of all items, made from stored records alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flatmin.record.blocks import (
    Block,
    Findings,
    Grid,
    Heading,
    Image,
    Mark,
    Paragraph,
    Row,
)
from flatmin.record.files import write_atomically
from flatmin.record.html_page import html_page
from flatmin.record.item import Experiment, Item, Verdict
from flatmin.record.markdown_page import markdown
from flatmin.record.pictures import png, svg
from flatmin.record.sizes import option_rows, size_in_words, without_folders
from flatmin.record.store import read_record
from flatmin.record.style import house_style

_HEADER = ("claim", "in the report", "here", "verdict")
_TWO_FORMS = ("claim", "in the report", "as reported", "verdict", "controlled", "under control")
_LONG = 8  # rows above which a table is closed at first


def publish(item: Item, record: dict[str, Any], out: Path) -> list[Verdict]:
    """Write ``<item>.md`` with ``<item>.png``, and ``<item>.svg`` for the page of all items.

    Args:
        item: The item.
        record: Its stored record.
        out: The output folder.

    Returns:
        The verdicts.
    """
    experiment = item.load()
    with house_style():
        figure = experiment.draw(record)
    verdicts = experiment.check(record)
    page = _page(experiment, record, verdicts)
    write_atomically(out / f"{item.name}.png", png(figure))
    write_atomically(out / f"{item.name}.svg", svg(figure))
    write_atomically(out / f"{item.name}.md", page)
    return verdicts


def item_page(item: Item, record: dict[str, Any]) -> str:
    """The page of an item in Markdown, without its figure."""
    experiment = item.load()
    return _page(experiment, record, experiment.check(record))


def _page(experiment: Experiment, record: dict[str, Any], verdicts: list[Verdict]) -> str:
    return markdown(_item_blocks(experiment, record, verdicts, level=1))


def publish_index(items: Mapping[str, Item], out: Path, *, title: str, about: str) -> list[str]:
    """Write ``index.html`` and ``index.md``, and the figures and pages of the items anew.

    Args:
        items: All items, in the order of the page.
        out: The folder with the records.
        title: Title of the page.
        about: What the items are of, a sentence without its end.

    Returns:
        A sentence for each record that cannot be used.
    """
    rows: list[Row] = []
    sections: list[Block] = []
    found: list[tuple[str, str]] = []
    quick: list[str] = []
    every: list[Verdict] = []
    absent: list[str] = []
    problems: list[str] = []
    for name, item in items.items():
        record = read_record(item, out)
        if record is None:
            absent.append(name)
            if (out / f"{name}.json").exists():
                problems.append(f"{name}.json is no complete record; compute it with --force.")
            continue
        try:
            verdicts = publish(item, record, out)
            experiment = item.load()
            blocks = _item_blocks(experiment, record, verdicts, level=2)
            row = Row(name, record["title"], _claims(verdicts), _first(verdicts))
            html_page(name, [row, *blocks])  # whether it can be written
            finding = experiment.finding(record) if hasattr(experiment, "finding") else ""
        except Exception as error:  # what a record of another version holds can fail in any way
            if isinstance(error, OSError):  # of the disk
                raise
            absent.append(name)
            problems.append(does_not_fit(name, error))
            continue
        every += verdicts
        sections += blocks
        rows.append(row)
        found += [(finding, name)] if finding else []
        quick += [name] if record["mode"] == "QUICK" else []
    head: list[Block] = [Heading(title, 1)]
    if quick:
        head.append(
            Paragraph(
                f"**Small enough to try out, too small to quote (QUICK):** {', '.join(quick)}."
            )
        )
    head.append(
        Paragraph(f"{about}; every number of ours comes from the records beside this page.")
    )
    if found:
        head += [Heading("What was found"), Findings(found)]
    head += [Heading("Claim by claim"), Paragraph(_summary(every, absent)), *rows]
    head += [Paragraph(f"**Not shown:** {problem}") for problem in problems]
    write_atomically(out / "index.html", html_page(title, [*head, *sections]))
    write_atomically(out / "index.md", markdown([*head, *sections]))
    return problems


def does_not_fit(name: str, error: Exception) -> str:
    """Say that a stored record cannot be shown, and what to do."""
    text = " ".join(str(error).split())
    return (
        f"{name}.json does not fit this version of flatmin ({type(error).__name__}: {text[:200]}); "
        "compute it with --force."
    )


def count(verdicts: list[Verdict]) -> str:
    """How many claims hold, in words."""
    if not verdicts:
        return "nothing to judge"
    claims = f"of {len(verdicts)} claim{'s' * (len(verdicts) > 1)}"
    return f"{claims} {_kinds([verdict.holds for verdict in verdicts])}"


def _claims(verdicts: list[Verdict]) -> Grid:
    """A row for each claim; with two columns of verdicts where any was judged in two forms."""
    if all(v.controlled is None for v in verdicts):
        return Grid(_HEADER, [[v.claim, v.reported, v.measured, Mark(v.holds)] for v in verdicts])
    rows: list[list[object]] = []
    for v in verdicts:
        first: list[object] = [v.measured, Mark(v.holds)]
        if v.controlled:
            found = [*first, v.controlled[0], Mark(v.controlled[1])]
        else:  # a question of ours is asked under control
            found = ["", "–", *first] if v.own else [*first, "", "–"]
        rows.append([v.claim, v.reported, *found])
    return Grid(_TWO_FORMS, rows)


def _first(verdicts: list[Verdict]) -> tuple[str, list[tuple[str, str]], Mark] | None:
    """The claim that stands for an item where there is room for one, with its values."""
    if not verdicts:
        return None
    v = verdicts[0]
    values = [("In the report", v.reported)] if v.reported else []
    values += [("here" if values else "Here", v.measured)]
    values += [("under control", v.controlled[0])] if v.controlled else []
    return v.claim, values, Mark(v.holds)


def _summary(verdicts: list[Verdict], absent: list[str]) -> str:
    """The report's claims and our own questions, counted apart."""
    report, own = ([v for v in verdicts if v.own is whose] for whose in (False, True))
    again = [v.controlled[1] for v in report if v.controlled]
    text = f"Of {len(report)} claims of the report {_kinds([v.holds for v in report])}."
    if again:
        text += f" {len(again)} of them were judged under control too: there {_kinds(again)}."
    if own:
        text += f" Of {len(own)} questions of our own {_kinds([v.holds for v in own])}."
    commands = ", ".join(f"`flatmin run {name}`" for name in absent)
    return f"{text} Not computed yet: {commands}." if absent else text


def _kinds(holds: list[bool | None]) -> str:
    yes, no, rest = (holds.count(kind) for kind in (True, False, None))
    return f"{yes} hold, {no} do not, and {rest} cannot be judged"


def _item_blocks(
    experiment: Experiment, record: dict[str, Any], verdicts: list[Verdict], *, level: int
) -> list[Block]:
    name = record["item"]
    notes = experiment.notes(record) if hasattr(experiment, "notes") else []
    tables = experiment.tables(record) if hasattr(experiment, "tables") else []
    said = [name for name in ("answer", "finding") if hasattr(experiment, name)]
    answers = [getattr(experiment, name)(record) for name in said[:1]]
    shown = answers[0] if answers else "; ".join(v.measured for v in verdicts[:2])
    return [
        Heading(f"{name}: {record['title']}", level, anchor=name),
        Paragraph(f"**Claim.** {record['claim']}"),
        *(Paragraph(f"**Answer.** {answer}") for answer in answers),
        Paragraph(size_in_words(record)),
        *([_claims(verdicts)] if verdicts and level == 1 else []),  # else they are above
        Image(
            f"{name}.png",
            lines=f"{name}.svg",
            description=f"{record['title']}. {_flat(shown)}".rstrip(". "),
        ),
        *map(Paragraph, notes),
        *(
            Grid(table.header, table.rows, table.title, folded=len(table.rows) > _LONG)
            for table in tables
        ),
        Grid(
            ("option", "value", "")[: 3 if record["changed"] else 2],
            option_rows(record),
            "Options",
            folded=True,
        ),
        Grid(
            ("", ""),
            [
                (key, without_folders(str(value)) if key == "command" else value)
                for key, value in origin_rows(record["provenance"])
            ],
            "Where this comes from",
            folded=True,
        ),
    ]


def _flat(text: str) -> str:
    """Without what a description of a picture cannot hold."""
    return re.sub(r"[*`\[\]\n]+", " ", text).replace("  ", " ")


def origin_rows(provenance: dict[str, Any]) -> list[tuple[str, object]]:
    """Where a result comes from, as rows of a table."""
    rows = dict(provenance)
    state = {True: ", with changes that are in no commit", False: "", None: ""}
    rows["commit"] = f"{rows['commit']}{state[rows.pop('dirty', None)]}"
    rows["command"] = f"`{rows['command']}`"
    return [(key, value) for key, value in rows.items() if value is not None]
