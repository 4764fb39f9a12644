"""Training and test accuracy by epoch, for Adam, SAM and ASAM.

Claim: SAM and ASAM have a very small gap between training and test accuracy compared with Adam,
so sharpness minimization acts as a kind of regularization.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.compare.optimizers import OPTIMIZERS
from flatmin.compare.pairing import commits, ends
from flatmin.compare.panels import caption, color
from flatmin.compare.statistics import mean, paired, signed, subtract
from flatmin.compare.verdict import together
from flatmin.experiments.images import _comparison as comparison
from flatmin.experiments.images._study import QUICK_STUDY, REPORTED, Study, StudyOptions
from flatmin.experiments.images._words import HOW, judged, limits
from flatmin.record.item import Table, Verdict
from flatmin.record.style import band, letter, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Config(StudyOptions):
    """The study of table 1 and figure 7, which share their runs."""


FULL = Config()
QUICK = Config(**QUICK_STUDY)


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Take the runs of table 1, or make them: curves as reported and under control."""
    study, epochs = Study(config, scratch), config.epochs
    reported = study.train(comparison.reported_ways(REPORTED, epochs), "fig7: as reported")
    choice = study.choose()
    controlled = study.train(
        {name: (epochs, choice["chosen"][name]) for name in OPTIMIZERS}, "fig7: controlled"
    )
    return {
        **study.describe(),
        **choice,
        "reported": {name: ends(runs, epochs) for name, runs in reported.items()},
        "equal_epochs": {name: ends(runs, epochs) for name, runs in controlled.items()},
        "curves": {
            "as reported": {n: _curves(r, epochs, "running") for n, r in reported.items()},
            "controlled": {n: _curves(r, epochs, "train") for n, r in controlled.items()},
        },
        "commits": commits(reported, controlled),
    }


def draw(record: dict[str, Any]) -> Figure:
    """A row as reported, a row around SGD and a row around Adam."""
    numbers = record["numbers"]
    figure, axes = subplots(3, 3, width=11, height=8.6, sharex=True, sharey=True)
    panels = [
        *((f"{name}, as reported", "reported", name) for name in REPORTED),
        *((f"{name}, controlled", "equal_epochs", name) for name in OPTIMIZERS),
    ]
    for ax, (title, key, name) in zip(axes.flat, panels, strict=True):
        first = key == "reported"
        curves = numbers["curves"]["as reported" if first else "controlled"][name]
        train = "running" if first else "train"
        _panel(ax, curves, train, color(name))
        gap = paired(numbers[key][name][train], numbers[key][name]["last"])
        ax.set_title(title)
        ax.text(0.97, 0.06, f"gap {gap} points", transform=ax.transAxes, ha="right", fontsize=8.5)
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy in %")
    axes[0, 0].legend(loc="upper left")
    letter(axes.flat)
    caption(figure, record)
    return figure


def answer(record: dict[str, Any]) -> str:
    """By how much the gap is smaller, as plotted and around the same base."""
    as_plotted, gaps = _gaps(record["numbers"])
    plotted = [
        f"{signed(paired(as_plotted['Adam'], as_plotted[name]))} points with {name}"
        for name in ("SAM", "ASAM")
    ]
    alike = [
        f"{signed(paired(gaps[base], gaps[f'{base} + {name}']))} with {name} on {base}"
        for name in ("SAM", "ASAM")
        for base in ("SGD", "Adam")
    ]
    return (
        "As the report plots it, the gap between training and test accuracy is smaller than Adam's "
        f"by {' and by '.join(plotted)}; around the same tuned base, by {', '.join(alike)}."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """The gap as the report plots it, and as it is."""
    as_plotted, gaps = _gaps(record["numbers"])
    found = []
    for name in ("SAM", "ASAM"):
        smaller = {f"Adam − {name}": paired(as_plotted["Adam"], as_plotted[name])}
        controlled = {
            f"{base} − {base} + {name}": paired(gaps[base], gaps[f"{base} + {name}"])
            for base in ("SGD", "Adam")
        }
        words = ", ".join(f"{n} {mean(as_plotted[n])}" for n in ("Adam", name))
        found.append(
            judged(
                record,
                f"{name} has a smaller gap between training and test accuracy than Adam (as "
                "plotted: training accuracy on augmented batches; under control: without "
                "augmentation, around the same base)",
                "Adam about 7 points, SAM and ASAM about 3.6; one seed",
                (f"{words}; {comparison.listed(smaller)}", together(smaller.values())),
                (comparison.listed(controlled), together(controlled.values())),
            )
        )
    return found


def tables(record: dict[str, Any]) -> list[Table]:
    """The gaps at the last epoch."""
    numbers = record["numbers"]
    rows = [
        [f"{name}, {kind}", *(str(mean(columns[c])) for c in ("running", "train", "last"))]
        + [str(mean(subtract(columns[c], columns["last"]))) for c in ("running", "train")]
        for kind, key in (("as reported", "reported"), ("controlled", "equal_epochs"))
        for name, columns in numbers[key].items()
    ]
    header = ("optimizer", "train, augmented", "train", "test", "gap, augmented", "gap")
    return [Table("Accuracy in % and gap in points at the last epoch", header, rows)]


def notes(record: dict[str, Any]) -> list[str]:
    """What is drawn, and how it was made."""
    return [
        "**Drawn**: mean over seeds, the band is a standard error. As reported, training accuracy "
        "is that on the augmented batches, while the weights change, as in the report's figure; it "
        "can lie below the test accuracy. Controlled, it is evaluated after the epoch and without "
        "augmentation, as the test accuracy is. A network that fits its training set less has a "
        "smaller gap too: look at the test accuracy beside it.",
        "The runs are those of table1.",
        HOW,
        *limits(record),
    ]


def _curves(runs: Sequence[dict[str, Any]], epochs: int, train: str) -> dict[str, Any]:
    """Mean and standard error over seeds, by epoch."""
    good = [run for run in runs if "diverged" not in run]
    shown = [epoch for epoch in good[0]["epochs"] if epoch <= epochs] if good else []
    curves: dict[str, Any] = {"epochs": shown}
    for key in (train, "test"):
        points = [mean(column) for column in zip(*(run[key] for run in good), strict=True)]
        curves[key] = [round(point.value, 3) for point in points[: len(shown)]]
        curves[f"{key}_error"] = [round(point.error, 3) for point in points[: len(shown)]]
    return curves


def _panel(ax: Axes, curves: dict[str, Any], train: str, shade: str) -> None:
    for key, style, label in ((train, "--", "training"), ("test", "-", "test")):
        middle, error = curves[key], curves[f"{key}_error"]
        ax.plot(curves["epochs"], middle, style, color=shade, label=label)
        both = [(m, e or 0.0) for m, e in zip(middle, error, strict=True)]
        band(ax, curves["epochs"], [m - e for m, e in both], [m + e for m, e in both], shade)


def _gaps(numbers: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Training less test accuracy by seed: as the report plots it, and under control."""
    as_plotted = {
        name: subtract(columns["running"], columns["last"])
        for name, columns in numbers["reported"].items()
    }
    gaps = {
        name: subtract(columns["train"], columns["last"])
        for name, columns in numbers["equal_epochs"].items()
    }
    return as_plotted, gaps
