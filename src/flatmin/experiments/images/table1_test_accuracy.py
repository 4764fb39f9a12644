"""Test accuracy of Adam, SAM and ASAM on CIFAR-10, as reported and under control.

Claim: Trained for 50 epochs, SAM (96.19 %) and ASAM (96.44 %) are clearly above Adam (92.3 %); it
is hard to tell ASAM from SAM, and both take longer.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.compare.search import search_table
from flatmin.compare.statistics import mean, paired
from flatmin.compare.verdict import alike, together
from flatmin.experiments.images import _comparison as comparison
from flatmin.experiments.images._seconds import seconds
from flatmin.experiments.images._study import QUICK_STUDY, REPORTED, Study, StudyOptions
from flatmin.experiments.images._words import HOW, judged, limits
from flatmin.record.item import Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT = {"Adam": 92.3, "SAM": 96.19, "ASAM": 96.44}


@dataclass(frozen=True, kw_only=True)
class Config(StudyOptions):
    """The study of table 1 and figure 7, which share their runs."""

    rounds: int = 5
    """How often the seconds per epoch are measured, side by side."""


FULL = Config()
QUICK = Config(**QUICK_STUDY, rounds=2)


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Train as reported, choose, train under control, and time the optimizers side by side."""
    study = Study(config, scratch)
    numbers = comparison.compare(study, REPORTED)
    return {**numbers, "seconds": seconds(study, numbers["chosen"], config.rounds)}


def draw(record: dict[str, Any]) -> Figure:
    """Accuracies as reported and under control, and the paired differences."""
    return comparison.figure(
        record, {name: f"{name} (report: {value})" for name, value in REPORT.items()}
    )


def finding(record: dict[str, Any]) -> str:
    """What is left of the report's comparison where the base optimizer is the same."""
    numbers = record["numbers"]
    best = {name: numbers["reported"][name]["best"] for name in REPORT}
    sam, asam = (paired(best[name], best["Adam"]).value for name in ("SAM", "ASAM"))
    same, fair = (comparison.gains(numbers, key) for key in ("equal_epochs", "equal_gradients"))
    clear = sum(gain.sign > 0 for gain in same.values())
    least, most = (pick(gain.value for gain in fair.values()) for pick in (min, max))
    return (
        f"SAM and ASAM around SGD differ from Adam by {sam:+.1f} and {asam:+.1f} points of test "
        f"accuracy, as the report compares them; around the same tuned optimizer {clear} of "
        f"{len(same)} gains are clear for as many epochs, and for as many gradients they are "
        f"{least:+.1f} to {most:+.1f} points ({record['config']['model']}, "
        f"{record['config']['seeds']} seeds; {numbers['source']})."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """The report's sentences on its runs, and what is left of them under control."""
    numbers = record["numbers"]
    best = {name: numbers["reported"][name]["best"] for name in REPORT}
    between = {"ASAM − SAM": paired(best["ASAM"], best["SAM"])}
    equal = numbers["equal_epochs"]
    rivals = {
        f"{base} + ASAM − {base} + SAM": paired(
            equal[f"{base} + ASAM"]["last"], equal[f"{base} + SAM"]["last"]
        )
        for base in ("SGD", "Adam")
    }
    bases = {"SGD − Adam, controlled": paired(equal["SGD"]["last"], equal["Adam"]["last"])}
    same, fair = (comparison.gains(numbers, key) for key in ("equal_epochs", "equal_gradients"))
    sam, asam, rest = (
        _ratio(numbers["seconds"][one], numbers["seconds"][other])
        for one, other in (
            ("SGD + SAM", "SGD"),
            ("SGD + ASAM", "SGD"),
            ("SGD + ASAM", "SGD + SAM"),
        )
    )
    as_published = {
        "SGD + SAM − SGD": paired(equal["SGD + SAM"]["last"], equal["SGD"]["last"]),
        "SGD + ASAM − SGD + SAM": rivals["SGD + ASAM − SGD + SAM"],
    }
    listed = comparison.listed
    above = []
    for name, said in (("SAM", "96.19"), ("ASAM", "96.44")):
        ahead = {f"{name} − Adam": paired(best[name], best["Adam"])}
        alone = comparison.only(name, same)
        above.append(
            judged(
                record,
                f"{name} is clearly above Adam",
                f"{said} against 92.3 %; around SGD, best epoch, one seed",
                (f"{mean(best[name])} %; {listed(ahead)}", together(ahead.values())),
                (
                    f"around the same base, as many epochs: {listed(alone)}",
                    together(alone.values()),
                ),
            )
        )
    return [
        *above,
        judged(
            record,
            "It is hard to tell whether ASAM improves on SAM",
            "+0.25 points; one seed",
            (listed(between), alike(between.values())),
            (listed(rivals), alike(rivals.values())),
        ),
        judged(
            record,
            "“Our results are consistent with Samsung's”: SAM above SGD, and ASAM above SAM (as "
            "reported there is no SGD, and only the second half can be seen)",
            "there 96.34 < 96.98 < 97.28 % after 200 epochs",
            (listed(between), together(between.values())),
            (listed(as_published), together(as_published.values())),
        ),
        *(
            judged(
                record,
                f"{name} is better at equal gradients too: the base trains for twice the epochs",
                "not asked",
                (listed(longer), together(longer.values())),
                own=True,
            )
            for name in ("SAM", "ASAM")
            for longer in [comparison.only(name, fair)]
        ),
        judged(
            record,
            "SGD and Adam alone do not differ, so that it makes no difference what SAM is around",
            "assumed: SGD alone was not run",
            (listed(bases), alike(bases.values())),
            own=True,
        ),
        Verdict(
            "An epoch takes longer with SAM than without",
            "270, 390 s: 1.44 times Adam",
            f"SAM {sam:.2f} and ASAM {asam:.2f} times SGD: each takes two gradients",
            sam > 1.2,
        ),
        Verdict(
            "An epoch takes longer with ASAM than with SAM",
            "390, 540 s: 1.38 times",
            f"{rest:.2f} times: ASAM's scale hardly counts",
            rest > 1.1,
        ),
    ]


def tables(record: dict[str, Any]) -> list[Table]:
    """Accuracies, differences, cost, and what was chosen from what."""
    taken = record["numbers"]["seconds"]
    rows = [
        [name, statistics.median(own), _ratio(own, taken[name.partition(" ")[0]])]
        for name, own in taken.items()
    ]
    title = f"Seconds per epoch, median of {record['config']['rounds']} rounds side by side"
    return [
        *comparison.tables(record),
        Table(title, ("optimizer", "seconds", "ratio to its base"), rows),
        search_table(record),
    ]


def notes(record: dict[str, Any]) -> list[str]:
    """How this was done, and what it cannot say."""
    return [
        "**As reported** means: Adam (1e-3, no weight decay, constant learning rate) against SAM "
        "(rho 0.05) and ASAM (rho 0.5, eta 0) around SGD (0.1, momentum 0.9, weight decay 5e-4, "
        "cosine). So the report's table compares two things at once, the base optimizer and "
        "sharpness awareness, and shows the best test epoch of one seed.",
        HOW,
        *limits(record),
    ]


def _ratio(taken: Sequence[float], base: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(taken, base, strict=True))
