"""Every form in a table: cost, accuracy, gain, and what is left of the whole gain."""

from __future__ import annotations

from typing import Any

from flatmin.compare.ratio import Share, share
from flatmin.compare.statistics import mean, paired, signed
from flatmin.record.item import Table


def tables(record: dict[str, Any]) -> list[Table]:
    """Every form: cost, accuracy, gain, and what is left of ASAM's."""
    numbers = record["numbers"]
    found = numbers["forms"]
    rows = [
        [
            name,
            form["gradients"],
            form["seconds"],
            str(mean(form["last"])),
            signed(paired(form["last"], found["SGD"]["last"])) if name != "SGD" else "",
            share_of(found, name) if name not in ("SGD", "ASAM") else "",
            str(mean(form["train"])),
        ]
        for name, form in found.items()
    ]
    header = ("form", "gradients", "seconds", "test", "gain over SGD", "of ASAM's gain", "train")
    searched = [
        [
            name,
            *looked["choices"][looked["best"]].values(),
            max(looked["accuracy"]),
            min(looked["accuracy"]),
        ]
        for name, looked in numbers["search"].items()
    ]
    return [
        Table(
            "Cost in multiples of SGD's; accuracy in %, last epoch, mean ± standard error; gains "
            "paired by seed, with 95 % intervals",
            header,
            rows,
        ),
        Table(
            f"The search: {record['config']['trials']} trials for each form; what was chosen, with "
            "the best and the worst accuracy in % on held-out images, whose labels are as wrong",
            ("form", "lr", "weight decay", "rho", "best", "worst"),
            searched,
        ),
    ]


def kept(found: dict[str, Any], name: str) -> Share:
    """What a form keeps of ASAM's gain."""
    return share(found[name]["last"], found["ASAM"]["last"], found["SGD"]["last"])


def share_of(found: dict[str, Any], name: str) -> str:
    """The same in words, with its interval."""
    return str(kept(found, name))
