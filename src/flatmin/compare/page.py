"""What is shown of a comparison, on a page and on a terminal, from its record alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flatmin.compare.aside import set_aside
from flatmin.compare.figure import figure
from flatmin.compare.flatness import EXAMPLES, RHO
from flatmin.compare.statistics import mean
from flatmin.record.blocks import Block, Grid, Heading, Image, Paragraph, written
from flatmin.record.files import write_atomically
from flatmin.record.html_page import html_page
from flatmin.record.page import origin_rows
from flatmin.record.pictures import png
from flatmin.record.store import plain_json
from flatmin.record.style import house_style


def publish(record: Mapping[str, Any], out: Path) -> Path | None:
    """Write ``compare.json``, ``compare.png`` and ``compare.html``; others' are set aside first.

    Args:
        record: The record of a comparison.
        out: The folder.

    Returns:
        Where the record of another comparison that lay there is now; None if none did.
    """
    with house_style():
        image = png(figure(record))
    title = f"Does it help? {record['task']['file']}"
    before = set_aside(out, record)
    write_atomically(out / "compare.png", image)
    write_atomically(out / "compare.json", plain_json(dict(record)))
    write_atomically(out / "compare.html", html_page(title, _blocks(record, title)))
    return before


def text_table(record: Mapping[str, Any]) -> str:
    """The differences as lines for a terminal."""
    lines = [_HEADER, *_rows(record)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


_HEADER = ("arm", "at equal", "difference [95 %]", "p (Holm)", "detectable", "verdict")


def _rows(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for row in record["differences"]:
        value, low, high, least = (row[name] for name in ("value", "low", "high", "detectable"))
        shown = "–" if value is None else f"{value:+.3g}"
        shown += "" if low is None or row["seeds"] < 2 else f" [{low:+.3g}, {high:+.3g}]"
        chance = f"{row['p']:.3f}"
        found.append((row["arm"], row["at"], shown, chance, written(least, 2), row["verdict"]))
    return found


def _blocks(record: Mapping[str, Any], title: str) -> list[Block]:
    task, config = record["task"], record["config"]
    unit = f" {task['unit']}" if task["unit"] else ""
    base: Mapping[str, Any] = task.get("base", {})  # a loop of one's own keeps its to itself
    return [
        Heading(title, 1),
        Paragraph(f"**{record['answer']}**"),
        Paragraph(_about(task, config)),
        Grid(
            _HEADER,
            _rows(record),
            f"Gain in {task['metric']}{unit and ', in' + unit}, paired by seed; positive is better",
        ),
        Paragraph(
            "p is corrected after Holm for the arms at the same cost. The detectable difference is "
            "the least true one that these seeds tell with a chance of 80 %."
        ),
        Image("compare.png", "Differences by seed with their intervals, and curves by epoch"),
        _arms(record),
        *_sharpness(record["arms"]),
        Heading("What could have gone wrong"),
        *map(Paragraph, record["troubles"]),
        Grid(
            ("arm", "lr", "rho", "held-out score"),
            [
                [name, one["lr"], one["rho"], one["score"][0]]
                for name, arm in record["arms"].items()
                for one in arm["tried"]
            ],
            "The search: everything that was tried, at full length",
            folded=True,
        ),
        Grid(
            ("option", "value"),
            [*config.items(), *((f"base: {key}", value) for key, value in base.items())],
            "Options",
            folded=True,
        ),
        Grid(("", ""), origin_rows(record["provenance"]), "Where this comes from", folded=True),
    ]


def _about(task: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    said = ""
    if "source" in task:
        parts = ", ".join(f"{count:,} {name}" for name, count in task["examples"].items())
        base = task["base"]
        said = (
            f"{task['source']}: {parts}; a network with {task['parameters']:,} parameters. "
            f"The base is {base['optimizer']} on batches of {base['batch_size']}, its loss "
            f"{base['loss']}, its schedule {base['schedule']}. "
        )
    return (
        f"{said}{config['seeds']} seeds, {config['epochs']} epochs of the base; the last epoch "
        f"counts. The {task['better']} {task['metric']} is better, and a difference matters from "
        f"{written(float(config['worth']))} on."
    )


def _arms(record: Mapping[str, Any]) -> Grid:
    rows = [
        [
            name,
            str(mean(arm["value"])),
            arm["epochs"],
            _middle(arm["gradients"]),
            _middle(record["seconds"]["runs"][name]),
            arm["lr"],
            arm["rho"],
        ]
        for name, arm in record["arms"].items()
    ]
    header = ("arm", record["task"]["metric"], "epochs", "gradients", "seconds", "lr", "rho")
    title = "Last epoch, mean ± standard error over seeds; seconds of training, as these runs took"
    return Grid(header, rows, title)


def _sharpness(arms: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    rows, reasons = [], set()
    for name, arm in arms.items():
        found = [one for one in arm["sharpness"] if one]
        reasons |= {one["reason"] for one in found if "reason" in one}
        known = [one for one in found if "reason" not in one]
        if known:
            errors = mean([one["error"] for one in known]).value
            columns = (_precise(one[key] for one in known) for key in ("worst", "average"))
            rows.append([name, *columns, errors])
    if not rows:
        return [Paragraph(f"**Sharpness** was not measured: {r}") for r in sorted(reasons)]
    title = (
        f"Rise of the training loss within {RHO:g} of |w|, which rescaling cannot fool, on "
        f"{EXAMPLES} examples; mean ± standard error over seeds"
    )
    return [Grid(("arm", "worst case", "average", "its error in one network"), rows, title)]


def _precise(values: Iterable[float]) -> str:
    found = mean(list(values))
    return f"{found.value:.3g}" + (f" ± {found.error:.2g}" if found.n > 1 else "")


def _middle(values: Sequence[float | None]) -> float | None:
    found = mean(values)
    return found.value if found.n else None
