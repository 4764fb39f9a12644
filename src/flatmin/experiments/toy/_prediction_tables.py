"""Tables of the grid of networks: each optimizer, each τ, and τ within one hyper-parameter."""

from __future__ import annotations

from typing import Any

from flatmin.experiments.toy._beside import NAMES
from flatmin.experiments.toy._grid import AXES
from flatmin.experiments.toy._prediction_words import interval
from flatmin.experiments.toy._ranking import ALIVE, ALL, COPIES, EQUAL, GIVEN, OTHERS, SAME, TARGETS
from flatmin.experiments.toy._scored import ERROR, GAP, LOSS, TRAIN
from flatmin.record.item import Table

SCOPES = (SAME, EQUAL, GIVEN, ALIVE, ALL, COPIES)


def tables(record: dict[str, Any]) -> list[Table]:
    """What the optimizers reach, and every τ of every measure."""
    numbers = record["numbers"]
    scores = (TRAIN, LOSS, ERROR, GAP)
    found = [
        Table(
            "Each optimizer over the grid: mean ± half-width of the 95 % interval over draws",
            ("optimizer, ρ", *scores, "predict one class"),
            [
                (way, *(_pm(row["means"][s]) for s in scores), f"{100 * row['one class']:.1f} %")
                for way, row in numbers["ways"].items()
            ],
        ),
        Table(
            "Share of pairs, in %, in which a network lies flatter than Adam's: alike in all else, "
            "and (in brackets) than Adam's of the same draw with the same training loss",
            ("measure", *(way for way, row in numbers["ways"].items() if "flatter" in row)),
            [
                (
                    name,
                    *(
                        f"{_share(row['flatter'][name]['share'])} "
                        f"({_share(row['flatter'][name]['matched'])})"
                        for row in numbers["ways"].values()
                        if "flatter" in row
                    ),
                )
                for name in NAMES
            ],
        ),
    ]
    for target in TARGETS:
        rows = [
            (name, *(_of(numbers["tau"][scope][target], name) for scope in SCOPES))
            for name in (*NAMES, *OTHERS)
        ]
        found.append(Table(f"Kendall's τ with the {target}", ("measure", *SCOPES), rows))
    for target in TARGETS:
        rows = [
            (name, *(_of(numbers["axes"][axis][target], name) for axis in AXES))
            for name in (*NAMES, *OTHERS)
        ]
        title = f"Kendall's τ with the {target}, over pairs that differ in one thing only"
        found.append(Table(title, ("measure", *AXES), rows))
    return found


def _of(row: dict[str, Any], name: str) -> str:
    return interval(row[name]) if name in row else "–"


def _pm(values: list[float]) -> str:
    return f"{values[0]:.3f} ± {values[1]:.3f}"


def _share(values: list[float | None]) -> str:
    value, half = values
    if value is None:
        return "–"
    return f"{100 * value:.0f}" + ("" if half is None else f" ± {100 * half:.0f}")
