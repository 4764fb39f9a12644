"""Adam given as much time as SAM and ASAM.

Claim: If Adam was given as much time rather than as many epochs, it might yield similar
performance; or it might converge before reaching it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.compare.optimizers import BASES, MINIMIZERS, OPTIMIZERS
from flatmin.compare.pairing import commits, ends
from flatmin.compare.statistics import mean, paired
from flatmin.compare.verdict import compared, decided, no_gain
from flatmin.experiments.images import _comparison as comparison
from flatmin.experiments.images._study import QUICK_STUDY, REPORTED, Study, StudyOptions
from flatmin.experiments.images._time_panels import panels
from flatmin.experiments.images._words import HOW, judged, limits
from flatmin.record.item import Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Config(StudyOptions):
    """The study of table 1, with the base optimizers for longer."""

    multiples: tuple[int, ...] = (1, 2, 4)
    """Times the epochs that the base optimizers are trained for; 2 is as many gradients as SAM's.
    With 1,2 all runs are those of table 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not {1, 2} <= set(self.multiples) or min(self.multiples) < 1:
            raise ValueError(
                "multiples must be positive and hold 1 and 2, the epochs and the gradients of "
                f"SAM, got {self.multiples}."
            )


FULL = Config()
QUICK = Config(**QUICK_STUDY, multiples=(1, 2))


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Train Adam, and SGD, for longer and longer."""
    study, epochs = Study(config, scratch), config.epochs
    lengths = sorted(set(config.multiples))
    # Constant learning rate: the longest run holds all shorter ones.
    reported = study.train(
        {
            name: (epochs * (lengths[-1] if name == "Adam" else 1), choices)
            for name, choices in REPORTED.items()
        },
        "ext_time: as reported",
    )
    choice = study.choose()
    chosen = choice["chosen"]
    controlled = study.train(
        {name: (epochs, chosen[name]) for name in OPTIMIZERS if name not in BASES},
        "ext_time: controlled",
    )
    bases = {
        length: study.train(
            {name: (length * epochs, chosen[name]) for name in BASES},
            f"ext_time: {length} × the epochs",
        )
        for length in lengths
    }
    return {
        **study.describe(),
        **choice,
        "reported": {
            **{name: ends(reported[name], epochs) for name in MINIMIZERS},
            **{f"Adam × {n}": ends(reported["Adam"], n * epochs) for n in lengths},
        },
        "equal_epochs": {
            **{name: ends(runs, epochs) for name, runs in controlled.items()},
            **{
                f"{name} × {n}": ends(runs, n * epochs)
                for n in lengths
                for name, runs in bases[n].items()
            },
        },
        "curves": {name: _curve(runs) for name, runs in reported.items()},
        "seconds": {
            name: [run.get("seconds") for run in runs]
            for name, runs in {**bases[1], **controlled}.items()
        },
        "commits": commits(reported, controlled, *bases.values()),
    }


def draw(record: dict[str, Any]) -> Figure:
    """Accuracy against gradients, as reported by epoch and under control by length."""
    return panels(record)


def answer(record: dict[str, Any]) -> str:
    """Whether time was what Adam lacked."""
    numbers = record["numbers"]
    reported, controlled = (_last(numbers[key]) for key in ("reported", "equal_epochs"))
    ahead = {n: paired(controlled[f"Adam + {n}"], controlled["Adam × 2"]) for n in MINIMIZERS}
    clauses = [
        compared(f"Adam + {n}", "Adam for twice the epochs", gain) for n, gain in ahead.items()
    ]
    around_sgd = [
        compared(
            f"SGD + {n}",
            "SGD for twice the epochs",
            paired(controlled[f"SGD + {n}"], controlled["SGD × 2"]),
        )
        for n in MINIMIZERS
    ]
    as_reported = [
        compared(n, "Adam for twice the epochs", paired(reported[n], reported["Adam × 2"]))
        for n in MINIMIZERS
    ]
    longer = [
        f"{paired(last['Adam × 2'], last['Adam × 1']).value:+.1f} points {words}"
        for words, last in (("as reported", reported), ("with a cosine", controlled))
    ]
    return (
        decided(
            no_gain(ahead.values()),
            "Given as much time, Adam is as good as with sharpness awareness",
            "Time alone does not make Adam as good as sharpness awareness does",
        )
        + f", at this size. Around the same base and tuned: {'; '.join(clauses)}. Around SGD: "
        f"{'; '.join(around_sgd)}. As the report ran them, with SAM and ASAM around SGD: "
        f"{'; '.join(as_reported)}. Twice the epochs bring Adam {' and '.join(longer)}."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """Both halves of the report's sentence, as reported and under control."""
    numbers = record["numbers"]
    longest = max(record["config"]["multiples"])
    reported, controlled = (_last(numbers[key]) for key in ("reported", "equal_epochs"))
    lead = {f"{n} − Adam × 2": paired(reported[n], reported["Adam × 2"]) for n in MINIMIZERS}
    ahead = {
        f"Adam + {n} − Adam × 2": paired(controlled[f"Adam + {n}"], controlled["Adam × 2"])
        for n in MINIMIZERS
    }
    half = max(n for n in record["config"]["multiples"] if n < longest)
    one, other = f"Adam × {longest}", f"Adam × {half}"
    more, more_controlled = (
        {f"{one} − {other}": paired(last[one], last[other])} for last in (reported, controlled)
    )
    return [
        judged(
            record,
            "Given as many gradients, Adam yields similar performance (under control: around Adam, "
            "with a cosine, tuned)",
            "thought possible",
            (comparison.listed(lead), no_gain(lead.values())),
            (comparison.listed(ahead), no_gain(ahead.values())),
        ),
        judged(
            record,
            f"Adam has converged before: {longest} times the epochs bring no more than {half}",
            "thought possible",
            (comparison.listed(more), no_gain(more.values())),
            (comparison.listed(more_controlled), no_gain(more_controlled.values())),
        ),
    ]


def tables(record: dict[str, Any]) -> list[Table]:
    """Accuracy by length, with the time it took."""
    numbers, epochs = record["numbers"], record["config"]["epochs"]
    rows = []
    for kind, key in (("as reported", "reported"), ("controlled", "equal_epochs")):
        for name, columns in numbers[key].items():
            base, _, times = name.partition(" × ")
            length = int(times or 1)
            gradients = length * (1 if times else 2)
            taken = mean(numbers["seconds"].get(base, [])).value * length * epochs
            seconds = None if kind == "as reported" else taken
            rows.append(
                [f"{name}, {kind}", length * epochs, gradients, str(mean(columns["last"])), seconds]
            )
    header = ("optimizer", "epochs", "gradients, in base epochs", "test accuracy in %", "seconds")
    return [
        Table(
            "Last epoch; seconds are those of these runs, on a machine that may have been shared",
            header,
            [[*row[:2], row[2] * epochs, *row[3:]] for row in rows],
        )
    ]


def notes(record: dict[str, Any]) -> list[str]:
    """What stands for time, and how it was made."""
    return [
        "**Time** is counted in gradients, which do not depend on the machine: SAM and ASAM take "
        "two for a step, so a base optimizer for twice the epochs has had as much. Table 1 has the "
        "seconds side by side: the ratio is 2 within a few percent.",
        "**As reported**, Adam's learning rate is constant, so one long run shows it at every "
        "length. **With a cosine** each length is a run of its own, with the choices that were "
        "best at the single length.",
        HOW,
        *limits(record),
    ]


def _last(columns: Mapping[str, dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Test accuracy at the last epoch, by name and seed."""
    return {name: column["last"] for name, column in columns.items()}


def _curve(runs: list[dict[str, Any]]) -> dict[str, Any]:
    good = [run for run in runs if "diverged" not in run]
    if not good:
        return {"epochs": [], "gradients": 1, "test": []}
    tests = zip(*(run["test"] for run in good), strict=True)
    return {
        "epochs": good[0]["epochs"],
        "gradients": good[0]["gradients"] // good[0]["steps"],
        "test": [round(mean(column).value, 3) for column in tests],
    }
