"""Tables of figure 4: every measure, every eta."""

from __future__ import annotations

from typing import Any

from flatmin.experiments.scaling._asam_measures import of_one_sign
from flatmin.experiments.scaling._walk import range_of
from flatmin.record.item import Table


def tables(record: dict[str, Any]) -> list[Table]:
    """Every measure, every eta."""
    numbers = record["numbers"]
    rows = []
    for name, kept in numbers["measures"].items():
        measure, _, networks = name.partition(" | ")
        rows.append(
            (
                measure,
                networks,
                range_of(kept["loss_ratio"]),
                range_of(kept["rise_ratio"]),
                range_of(of_one_sign(kept)),
                range_of(kept["rise_spread"]),
                f"{sum(kept['below'])}",
            )
        )
    header = (
        "T",
        "networks",
        "loss: max / min",
        "rise: max / min of its size",
        "the same where it keeps its sign",
    )
    return [
        Table(
            "Over the scalings of each network; median and range over networks",
            (*header, "rise: (max − min) / |mean|", "times below zero"),
            rows,
        ),
        Table(
            "The part of eta, networks without biases: (max − min) / |mean|",
            ("eta", "loss", "rise"),
            [
                (eta, range_of(kept["loss_spread"]), range_of(kept["rise_spread"]))
                for eta, kept in numbers["etas"].items()
            ],
        ),
    ]
