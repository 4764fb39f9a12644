"""The result of another comparison in the same folder, which keeps a name of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flatmin.record.files import read_json, write_atomically

_FILES = ("compare.html", "compare.png", "compare.json")  # the last one tells that they are there


def set_aside(out: Path, record: Mapping[str, Any]) -> Path | None:
    """Give the files of another task, or of another setting, the next free number.

    The same comparison with more seeds goes on, and takes the place of what it was.

    Args:
        out: The folder.
        record: What is to be written there.

    Returns:
        Where the other record is now; None where there was none.
    """
    there = out / _FILES[-1]
    if not there.exists() or _goes_on(read_json(there), record):
        return None
    number = 1
    while any((out / _numbered(name, number)).exists() for name in _FILES):
        number += 1
    page = out / _FILES[0]
    if page.exists():  # it shows its picture by name
        text = page.read_text(encoding="utf-8", errors="replace")
        write_atomically(page, text.replace(_FILES[1], _numbered(_FILES[1], number)))
    for name in _FILES:
        if (out / name).exists():
            (out / name).rename(out / _numbered(name, number))
    return out / _numbered(there.name, number)


def _numbered(name: str, number: int) -> str:
    stem, _, ending = name.partition(".")
    return f"{stem}-{number}.{ending}"


def _goes_on(before: Any, record: Mapping[str, Any]) -> bool:
    """Whether one is the other with as many seeds or more."""
    names = ("epochs", "arms", "trials", "device")  # what matters may follow from the seeds
    try:
        old, new = before["config"], record["config"]
        return (
            before["task"]["key"] == record["task"]["key"]
            and all(old[name] == new[name] for name in names)
            and bool(old["seeds"] <= new["seeds"])
        )
    except (KeyError, TypeError):  # a damaged one, or none of ours
        return False
