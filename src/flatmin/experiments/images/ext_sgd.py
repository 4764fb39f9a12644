"""SGD with the report's settings: the row that its table does not have.

Claim: SAM (96.19 %) and ASAM (96.44 %) are clearly above Adam (92.3 %). Both are around SGD, which
the report did not run alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.compare.pairing import commits, ends
from flatmin.compare.panels import color
from flatmin.compare.statistics import Mean, mean, paired, signed
from flatmin.compare.verdict import RULE, compared, together
from flatmin.experiments.images._comparison import listed, reported_figure, reported_ways
from flatmin.experiments.images._setting import Training, TrainingOptions
from flatmin.experiments.images._study import QUICK_STUDY, REPORTED
from flatmin.experiments.images._words import judged
from flatmin.record.item import Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INSIDE = ("optimizer", "lr", "schedule", "options")
# Adam last, which goes on for twice the epochs: what is asked here is answered before.
ARMS = {"SGD": {name: REPORTED["SAM"][name] for name in _INSIDE}}
ARMS |= {name: REPORTED[name] for name in ("SAM", "ASAM", "Adam")}

ORDER = ("Adam", "SGD", "SAM", "ASAM")
PAIRS = (("SGD", "Adam"), ("SAM", "Adam"), ("ASAM", "Adam"), ("SAM", "SGD"), ("ASAM", "SGD"))


@dataclass(frozen=True, kw_only=True)
class Config(TrainingOptions):
    """The runs of table 1 as reported, and SGD beside them."""


FULL = Config()
QUICK = Config(
    **{name: QUICK_STUDY[name] for name in QUICK_STUDY if name in Config.__dataclass_fields__}
)


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Train each with the report's settings, from the same starts."""
    study = Training(config, scratch)
    runs = study.train(reported_ways(ARMS, config.epochs), "ext_sgd: as reported")
    return {
        **study.describe(),
        "arms": {name: ends(found, config.epochs) for name, found in runs.items()},
        "commits": commits(runs),
    }


def draw(record: dict[str, Any]) -> Figure:
    """Accuracies, and the differences to Adam and to SGD."""
    arms = record["numbers"]["arms"]
    rows = {name: (color(name), arms[name]) for name in ORDER}
    return reported_figure(record, rows, PAIRS, "best", [2.5])


def answer(record: dict[str, Any]) -> str:
    """What the base optimizer alone does, and what sharpness awareness adds to it."""
    found = _differences(record)
    clauses = [
        compared("SGD", "Adam", found["SGD − Adam"]),
        *(compared(name, "the SGD inside it", found[f"{name} − SGD"]) for name in ("SAM", "ASAM")),
    ]
    return f"With the report's settings {'; '.join(clauses)}."


def check(record: dict[str, Any]) -> list[Verdict]:
    """What of the distance to Adam is the base's, and what is left for sharpness awareness."""
    found, arms = _differences(record), record["numbers"]["arms"]
    base = {"SGD − Adam": found["SGD − Adam"]}
    return [
        judged(
            record,
            "SGD alone, with the settings that it has inside SAM and ASAM, is above Adam",
            "SGD alone was not run; SAM +3.89 and ASAM +4.14 over Adam, best epoch, one seed",
            (f"SGD {mean(arms['SGD']['best'])} %; {listed(base)}", together(base.values())),
            own=True,
        ),
        *(
            judged(
                record,
                f"{name} is above the SGD that is inside it, with the report's settings",
                "SGD alone was not run",
                (listed(gain), together(gain.values())),
                own=True,
            )
            for name in ("SAM", "ASAM")
            for gain in [{f"{name} − SGD": found[f"{name} − SGD"]}]
        ),
    ]


def tables(record: dict[str, Any]) -> list[Table]:
    """Accuracies of all four, and the differences."""
    arms = record["numbers"]["arms"]
    rows = [
        [
            name,
            str(mean(columns["best"])),
            str(mean(columns["last"])),
            str(mean(columns["train"])),
            *(
                signed(paired(columns["last"], arms[other]["last"])) if name != other else ""
                for other in ("Adam", "SGD")
            ),
        ]
        for name in ORDER
        for columns in [arms[name]]
    ]
    return [
        Table(
            "Accuracy in %, mean ± standard error over seeds; differences in points, last epoch, "
            "paired by seed, with 95 % intervals",
            ("optimizer", "best test", "test", "train", "− Adam", "− SGD"),
            rows,
        )
    ]


def notes(record: dict[str, Any]) -> list[str]:
    """What is compared, and what it cannot say."""
    numbers, config = record["numbers"], record["config"]
    return [
        "**The settings** are the report's: Adam with 1e-3, no weight decay, constant; SGD with "
        "0.1, momentum 0.9, weight decay 5e-4, a cosine by epoch; SAM with rho 0.05 and ASAM with "
        "rho 0.5, eta 0, around that SGD. Nothing is tuned, and the best epoch is chosen on the "
        "test set, as the report does; the table has the last one beside it. SAM and ASAM take two "
        "gradients where SGD takes one. What is left under fair control is in table 1.",
        RULE,
        f"**Measured on** {numbers['source']}; tested on {numbers['test_source']}. The network is "
        f"{config['model']} with {numbers['parameters']:,} parameters, trained for "
        f"{config['epochs']} epochs; the report's is wrn-28-10 with 36,479,194, trained for 50 on "
        f"all 50,000 images. Runs were made at commit {', '.join(numbers['commits'])}.",
    ]


def _differences(record: Mapping[str, Any]) -> dict[str, Mean]:
    best = {name: columns["best"] for name, columns in record["numbers"]["arms"].items()}
    return {f"{one} − {other}": paired(best[one], best[other]) for one, other in PAIRS}
