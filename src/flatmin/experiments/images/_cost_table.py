"""Every form in a table: cost, accuracy, gain, and what is left of the whole gain."""

from __future__ import annotations

from typing import Any

from flatmin.compare.ratio import Share, share
from flatmin.compare.statistics import mean, paired, signed
from flatmin.record.item import Table


def tables(record: dict[str, Any]) -> list[Table]:
    """Every form: cost, accuracy, gain, and what is left of the whole one."""
    numbers = record["numbers"]
    found, best = numbers["forms"], whole(numbers)
    rows = [
        [
            name,
            form["gradients"],
            form["seconds"],
            str(mean(form["last"])),
            signed(paired(form["last"], found["SGD"]["last"])) if name != "SGD" else "",
            str(kept(numbers, name)) if name not in ("SGD", best) else "",
            str(mean(form["train"])),
        ]
        for name, form in found.items()
    ]
    header = ("form", "gradients", "seconds", "test", "gain over SGD", f"of {best}'s gain", "train")
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


def whole(numbers: dict[str, Any]) -> str:
    """SAM or ASAM: the one that was better on held-out images, so that nobody looks at the test."""
    return max(("SAM", "ASAM"), key=lambda name: max(numbers["search"][name]["accuracy"]))


def kept(numbers: dict[str, Any], name: str) -> Share:
    """What a form keeps of the whole gain."""
    found = numbers["forms"]
    return share(found[name]["last"], found[whole(numbers)]["last"], found["SGD"]["last"])
