"""The files of ``flatmin measure``: one JSON, one picture, and none of another network's lost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flatmin.record.files import read_json, write_atomically

_KEPT = ("measure.json", "measure.png")


def write_results(
    out: Path, records: Sequence[dict[str, Any]], picture: bytes | None
) -> str | None:
    """Write ``measure.json`` and ``measure.png``; those of other networks are set aside first.

    Args:
        out: The folder.
        records: Of one network, or of several, which share options and origin.
        picture: The figure, if there is one.

    Returns:
        A sentence, where something was set aside.
    """
    record = records[0] if len(records) == 1 else _together(records)
    said = _set_aside(out, record)
    if picture:
        write_atomically(out / "measure.png", picture)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(out / "measure.json", text + "\n")
    if not picture:  # one of an earlier measurement would seem to be this one's
        (out / "measure.png").unlink(missing_ok=True)
    return said


def _together(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    shared = {name: records[0][name] for name in ("config", "provenance")}
    apart = [{k: v for k, v in record.items() if k not in shared} for record in records]
    return {"networks": apart, **shared}


def _set_aside(out: Path, record: Mapping[str, Any]) -> str | None:
    """Give the files of other networks the next free number."""
    there = out / "measure.json"
    if not there.exists():
        return None
    before = read_json(there)
    if _who(before) == _who(record):
        return None
    number = 1
    while any((out / _numbered(name, number)).exists() for name in _KEPT):
        number += 1
    for name in _KEPT:
        if (out / name).exists():
            (out / name).rename(out / _numbered(name, number))
    names = [name for name, *_ in _who(before)]
    of = f"held {', '.join(names)}" if names else "held something else"
    return f"{there} {of} and is now {out / _numbered(_KEPT[0], number)}."


def _numbered(name: str, number: int) -> str:
    stem, _, ending = name.partition(".")
    return f"{stem}-{number}.{ending}"


def _who(record: Any) -> list[tuple[Any, ...]]:
    """Which networks a record is of; nothing where it is none."""
    if not isinstance(record, Mapping):
        return []
    networks = record.get("networks", [record])
    try:
        return [
            (one["title"], *(one["network"].get(key) for key in ("source", "weights", "step")))
            for one in networks
        ]
    except (AttributeError, KeyError, TypeError):
        return []
