"""Computes an item once, and keeps its numbers with where they come from."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

from flatmin.record.files import alone, read_json, write_atomically
from flatmin.record.item import Item
from flatmin.record.provenance import provenance

_SCRATCH = ".scratch"


def config_dict(config: Any) -> dict[str, Any]:
    """A configuration as JSON gives it back."""
    return cast("dict[str, Any]", json.loads(json.dumps(asdict(config))))


def forget(items: Iterable[Item], out: Path) -> None:
    """Throw away the finished parts of items, their own and those that they share with others.

    Args:
        items: What is to be computed anew.
        out: The output folder.
    """
    for item in items:
        shared = [out / name for name in getattr(item.load().FULL, "shares", ())]
        for parts in [*(out / _SCRATCH).glob(f"{item.name}-*"), *filter(Path.is_dir, shared)]:
            shutil.rmtree(parts)


def run_item(item: Item, config: Any, mode: str, out: Path) -> None:
    """Compute an item and store ``<item>.json``, complete or not at all.

    Args:
        item: What to compute.
        config: An instance of its ``Config``.
        mode: "FULL" or "QUICK": the configuration that ``config`` started from.
        out: The output folder. The parts of an interrupted run are kept in a folder below it.

    Raises:
        ValueError: If another process computes the same.
    """
    experiment = item.load()
    base = experiment.QUICK if mode == "QUICK" else experiment.FULL
    plain = config_dict(config)
    key = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
    scratch = out / _SCRATCH / f"{item.name}-{key}"
    with alone(scratch):
        origin = provenance(plain)
        start = time.perf_counter()
        numbers = experiment.run(config, scratch)
        record = {
            "item": item.name,
            "title": item.title,
            "claim": item.claim,
            "mode": mode,
            "changed": [
                field.name
                for field in fields(config)
                if getattr(config, field.name) != getattr(base, field.name)
            ],
            "config": plain,
            "numbers": numbers,
            "provenance": {**origin, "seconds": round(time.perf_counter() - start, 1)},
        }
        write_atomically(out / f"{item.name}.json", plain_json(record))
        shutil.rmtree(scratch)
    with suppress(OSError):  # others may work there
        scratch.parent.rmdir()


def read_record(item: Item, out: Path) -> dict[str, Any] | None:
    """Read what is stored of an item; None if nothing is, or no complete record of this item."""
    record = read_json(out / f"{item.name}.json")
    kinds = {"title": str, "claim": str, "mode": str, "changed": list}
    kinds |= dict.fromkeys(("config", "numbers", "provenance"), dict)
    if not isinstance(record, dict) or record.get("item") != item.name:
        return None
    return record if all(isinstance(record.get(key), kinds[key]) for key in kinds) else None


def once(file: Path, compute: Callable[[], Any]) -> Any:
    """A finished part, from before the interruption or from now."""
    if read_json(file) is None:
        write_atomically(file, json.dumps(compute()))
    return read_json(file)


def plain_json(record: dict[str, Any]) -> str:
    """A record as JSON that can be read, and its changes too."""
    text = json.dumps(_finite(record), indent=1, ensure_ascii=False, allow_nan=False)
    return _dense(text) + "\n"


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they are stored as null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _dense(text: str) -> str:
    """Lists of numbers on one line: a record can be read, and its changes too."""
    return re.sub(r"\[[^\[\]{}\"]*\]", lambda m: " ".join(m.group().split()), text)
