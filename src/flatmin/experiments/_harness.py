"""Finds the experiments, runs one, and keeps its numbers with where they come from.

An experiment is a file ``<item>_<content>.py`` beside this one. Its docstring has the title in the
first line and the claim in the paragraph that starts with "Claim:". It defines ``Config`` (a frozen
dataclass), ``FULL`` and ``QUICK``, and the functions of :class:`Experiment`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import math
import pkgutil
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from flatmin import experiments
from flatmin.experiments._files import alone, read_json, write_atomically
from flatmin.experiments._provenance import provenance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCRATCH = ".scratch"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A sentence of the report, its value there and here, and whether it holds here.

    Attributes:
        claim: What is judged, one sentence.
        reported: What the report says or shows; empty where it says nothing.
        measured: What was measured here, or why it cannot be judged.
        holds: Whether the claim holds here; None where it cannot be judged.
    """

    claim: str
    reported: str
    measured: str
    holds: bool | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a page; numbers are shown with four digits, texts as they are."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]


class Experiment(Protocol):
    """What the file of an item defines; ``answer``, ``tables`` and ``notes`` may be left out.

    Its configuration may name in ``shares`` folders beside the scratch folder in which several
    items keep parts that they all need.
    """

    FULL: Any
    QUICK: Any

    def run(self, config: Any, scratch: Path) -> dict[str, Any]:
        """Compute plain JSON values; ``scratch`` may hold finished parts of a long run."""

    def draw(self, record: dict[str, Any]) -> Figure:
        """Draw the figure from a stored record alone."""

    def check(self, record: dict[str, Any]) -> list[Verdict]:
        """Judge the claims from a stored record alone."""

    def answer(self, record: dict[str, Any]) -> str:
        """Answer an open question in plain words, with intervals, at the head of the page."""

    def tables(self, record: dict[str, Any]) -> list[Table]:
        """Give tables for the page."""

    def notes(self, record: dict[str, Any]) -> list[str]:
        """Give paragraphs for the page, below the figure."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the report: its name, where it is computed, and what its docstring says."""

    name: str
    module: str
    title: str
    claim: str

    def load(self) -> Experiment:
        """Import the file of the item."""
        return cast("Experiment", importlib.import_module(self.module))


def discover() -> dict[str, Item]:
    """Find the experiments by their file names, without importing them, in the report's order."""
    found: dict[str, Item] = {}
    for info in pkgutil.iter_modules(experiments.__path__):
        if info.name.startswith("_"):
            continue
        item = _read_item(info.name, Path(getattr(info.module_finder, "path", "")))
        if item.name in found:
            raise RuntimeError(f"two files are named for the item {item.name}: rename one.")
        found[item.name] = item
    return dict(sorted(found.items(), key=lambda pair: _order(pair[0])))


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
        names = [f"{item.name}-*", *getattr(item.load().FULL, "shares", ())]
        for parts in [path for name in names for path in (out / _SCRATCH).glob(name)]:
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
            "numbers": _finite(numbers),
            "provenance": {**origin, "seconds": round(time.perf_counter() - start, 1)},
        }
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(out / f"{item.name}.json", _dense(text) + "\n")
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


def _read_item(stem: str, folder: Path) -> Item:
    tree = ast.parse((folder / f"{stem}.py").read_text(encoding="utf-8"))
    paragraphs = (ast.get_docstring(tree) or "").split("\n\n")
    title = paragraphs[0].strip().rstrip(".")
    claims = [" ".join(p.split()) for p in paragraphs if p.startswith("Claim:")]
    if not title or len(claims) != 1:
        raise RuntimeError(
            f"the docstring of {stem}.py must have a title and one paragraph 'Claim: …'."
        )
    name = stem if stem.startswith("ext_") else stem.partition("_")[0]
    return Item(name, f"{experiments.__name__}.{stem}", title, claims[0].removeprefix("Claim: "))


def _order(name: str) -> tuple[int, str, int, str]:
    kind, number = re.fullmatch(r"([a-z]*)(\d*).*", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return (kind == "ext", kind, int(number or 0), name)


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
