"""The very simple network at the report's own size.

Claim: A very simple model, trained on CIFAR-10 for 200 epochs, is not improved by sharpness aware
optimizers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.compare.pairing import commits, ends
from flatmin.compare.panels import color
from flatmin.compare.statistics import Mean, mean, paired, signed
from flatmin.compare.verdict import RULE, compared, no_gain
from flatmin.experiments.images._comparison import (
    TWICE,
    listed,
    reported_figure,
    reported_ways,
)
from flatmin.experiments.images._setting import Training, TrainingOptions
from flatmin.experiments.images._study import QUICK_STUDY
from flatmin.experiments.images._words import judged
from flatmin.experiments.images.ext_simple_model import REPORTED
from flatmin.record.item import Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPOCHS, IMAGES = 200, 50_000  # of the report
PAIRS = (("SAM", "Adam"), ("ASAM", "Adam"), ("SAM", TWICE), ("ASAM", TWICE))


@dataclass(frozen=True, kw_only=True)
class Config(TrainingOptions):
    """The report's small convolutional network, on all images."""

    model: str = "cnn"
    """Network; cnn is the report's."""
    epochs: int = EPOCHS
    """Passes over the training images."""
    seeds: int = 3
    """Number of starts, each with its own batches; all optimizers share them."""
    precision: str = "fp32"
    """Floating type of the convolutions: bf16 (autocast) or fp32."""
    evaluate_every: int = 20
    """Epochs between evaluations; a divisor of the epochs."""


FULL = Config()
_KEPT = Config.__dataclass_fields__.keys() & QUICK_STUDY.keys() - {"model", "pixels"}
QUICK = Config(**{name: QUICK_STUDY[name] for name in _KEPT}, evaluate_every=1)


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Train each with the report's settings, from the same starts."""
    study = Training(config, scratch)
    runs = study.train(reported_ways(REPORTED, config.epochs), "ext_own_size: as reported")
    arms = {name: ends(found, config.epochs) for name, found in runs.items()}
    return {
        **study.describe(),
        "arms": {**arms, TWICE: ends(runs["Adam"], 2 * config.epochs)},
        "commits": commits(runs),
        "devices": sorted(
            {f"{run['device']} (torch {run['torch']})" for found in runs.values() for run in found}
        ),
    }


def draw(record: dict[str, Any]) -> Figure:
    """Accuracies, and the differences to Adam for as many epochs and as many gradients."""
    arms = record["numbers"]["arms"]
    rows = {name: (color(name), arms[name]) for name in ("Adam", TWICE, "SAM", "ASAM")}
    return reported_figure(record, rows, PAIRS, "last", [1.5])


def answer(record: dict[str, Any]) -> str:
    """Whether the very simple model profits, as the report trained it."""
    found = _differences(record)
    same, longer = (
        "; ".join(
            compared(f"Adam + {name}", "Adam", found[f"{name} − {other}"])
            for name in ("SAM", "ASAM")
        )
        for other in ("Adam", TWICE)
    )
    return (
        f"With the report's settings, on {record['numbers']['train_images']:,} images: at equal "
        f"epochs {same}; at equal gradients {longer}."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """The report's sentence at equal epochs, and the same at equal gradients."""
    found, arms = _differences(record), record["numbers"]["arms"]
    same, longer = (
        {f"{name} − {other}": found[f"{name} − {other}"] for name in ("SAM", "ASAM")}
        for other in ("Adam", TWICE)
    )
    level = f"Adam {mean(arms['Adam']['last'])} %; "
    return [
        judged(
            record,
            "The very simple model is not improved by sharpness awareness (Adam 1e-3 for all, rho "
            f"0.05 and 0.5; {record['config']['epochs']} epochs)",
            "stated, without numbers",
            (level + listed(same), no_gain(same.values())),
        ),
        judged(
            record,
            "Nor is it at equal gradients: Adam trains for twice the epochs",
            "not asked",
            (listed(longer), no_gain(longer.values())),
            own=True,
        ),
    ]


def tables(record: dict[str, Any]) -> list[Table]:
    """Accuracies, and the differences to Adam."""
    arms, epochs = record["numbers"]["arms"], record["config"]["epochs"]
    rows = [
        [
            name,
            2 * epochs if name == TWICE else epochs,
            str(mean(columns["last"])),
            str(mean(columns["best"])),
            str(mean(columns["train"])),
            *(
                signed(paired(columns["last"], arms[other]["last"])) if "SAM" in name else ""
                for other in ("Adam", TWICE)
            ),
        ]
        for name, columns in arms.items()
    ]
    return [
        Table(
            "Accuracy in %, mean ± standard error over seeds; differences in points, last epoch, "
            "paired by seed, with 95 % intervals",
            ("optimizer", "epochs", "test", "best test", "train", "− Adam", f"− {TWICE}"),
            rows,
        )
    ]


def notes(record: dict[str, Any]) -> list[str]:
    """What was run, and what it leaves open."""
    numbers, config = record["numbers"], record["config"]
    count = numbers["train_images"]
    whole = config["epochs"] == EPOCHS and count == IMAGES
    return [
        "**The network**: two convolutions of 5 × 5 with 6 and 16 channels, pooling, and linear "
        f"layers of 120, 84 and 10 units; no normalization; {numbers['parameters']:,} parameters. "
        f"Trained on {numbers['source']} for {config['epochs']} epochs; tested on "
        f"{numbers['test_source']}.",
        *(
            []
            if whole
            else [f"**Smaller than the report's**, which is {EPOCHS} epochs on {IMAGES:,} images."]
        ),
        "**The settings** are the report's, and nothing is tuned: what is left where learning "
        "rate, weight decay and radius are chosen for each is in ext_simple_model. Adam's learning "
        "rate is constant, so that its first half is the report's run. " + RULE,
        f"Runs were made on {'; '.join(numbers['devices'])}, at commit "
        f"{', '.join(numbers['commits'])}.",
    ]


def _differences(record: Mapping[str, Any]) -> dict[str, Mean]:
    last = {name: columns["last"] for name, columns in record["numbers"]["arms"].items()}
    return {f"{one} − {other}": paired(last[one], last[other]) for one, other in PAIRS}
