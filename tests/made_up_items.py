"""Made-up items in the place of the report's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flatmin import experiments

WING = "made_up"
ITEM = '''"""A made-up item.

Claim: Two and two
is four.
"""

from dataclasses import dataclass

from flatmin.record.item import Table, Verdict
from flatmin.record.style import subplots


@dataclass(frozen=True, kw_only=True)
class Config:
    seeds: int = 4
    device: str = "cpu"
    data: str | None = None
    sizes: tuple[int, ...] = (1, 2)
    exact: bool = False
    trouble: str = ""

    def __post_init__(self):
        if self.sizes and max(self.sizes) > 99:
            raise ValueError("sizes must be at most 99.")


FULL = Config()
QUICK = Config(seeds=1)
ERRORS = {"value": ValueError, "key": KeyError, "stop": KeyboardInterrupt}


def run(config, scratch):
    with (scratch / "calls").open("a") as file:
        file.write("x")
    if config.trouble:
        raise ERRORS[config.trouble]("the sum must be four, got five.")
    calls = len((scratch / "calls").read_text())
    return {"sum": 4, "calls": calls, "gap": [1.0, float("nan")], "pair": (1, 2)}


def draw(record):
    figure, axes = subplots(width=2.0, height=1.5)
    axes[0, 0].plot(record["numbers"]["pair"])
    axes[0, 0].set_axis_off()  # quickly drawn
    return figure


def check(record):
    holds = record["numbers"]["sum"] == 4
    return [
        Verdict("2 + 2 = 4", "4 | four", f"{record['numbers']['sum']}", holds),
        Verdict("it is <prime>", "yes", "no", False),
        Verdict("it is nice", "", "no taste here", None),
    ]


def tables(record):
    return [Table("Sums", ("a", "b"), [(1.23456789, "x|y"), (1e-12, None)])]


def notes(record):
    return ["**Note** that `2 < 4` & so on."]
'''
SECOND = '''"""Another one.

Claim: None.
"""

from dataclasses import dataclass
from matplotlib.figure import Figure
from flatmin.record.item import Verdict


@dataclass(frozen=True, kw_only=True)
class Config:
    size: float = 1.0


FULL = QUICK = Config()


def run(config, scratch):
    return {}


def draw(record):
    return Figure(figsize=(1, 1))


def check(record):
    return []
'''


@pytest.fixture
def add_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], None]]:
    """A wing in the place of the report's, empty at first, and how to put an item there."""
    folder = tmp_path / "items" / WING
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    monkeypatch.setattr(experiments, "__path__", [str(folder.parent)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def add(stem: str, source: str) -> None:
        (folder / f"{stem}.py").write_text(source)

    yield add
    wing = f"{experiments.__name__}.{WING}"
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{wing}.")]:
        del sys.modules[name]


@pytest.fixture
def two_items(add_item: Callable[[str, str], None]) -> None:
    """`fig90` has every kind of option, `table91` one."""
    add_item("table91_other", SECOND)
    add_item("fig90_made_up", ITEM)
