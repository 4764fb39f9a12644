"""A very simple network: does sharpness awareness help it?

Claim: A very simple model, trained on CIFAR-10 for 200 epochs, is not improved by sharpness aware
optimizers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.compare.search import search_table
from flatmin.compare.statistics import mean, paired
from flatmin.compare.verdict import compared, decided, no_gain
from flatmin.experiments.images import _comparison as comparison
from flatmin.experiments.images._study import QUICK_STUDY, Study, StudyOptions
from flatmin.experiments.images._words import HOW, judged, limits
from flatmin.record.item import Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ADAM = {"optimizer": "adam", "lr": 1e-3, "schedule": "none"}
REPORTED: dict[str, dict[str, Any]] = {
    "Adam": _ADAM,
    "SAM": {**_ADAM, "minimizer": "sam", "rho": 0.05},
    "ASAM": {**_ADAM, "minimizer": "asam", "rho": 0.5},
}


@dataclass(frozen=True, kw_only=True)
class Config(StudyOptions):
    """The report's small convolutional network."""

    model: str = "cnn"
    """Network; cnn is the report's."""
    epochs: int = 200
    """Passes over the training images."""
    precision: str = "fp32"
    """Floating type of the convolutions: bf16 (autocast) or fp32."""
    bases: tuple[str, ...] = ("SGD", "Adam")
    """Base optimizers of the controlled part: SGD, Adam or both."""
    search_epochs: int | None = 50
    """Epochs of each run of the search; none for as many as in the study."""


FULL = Config()
QUICK = Config(**{**QUICK_STUDY, "model": "cnn", "pixels": 32, "sgd_lrs": (0.03,)})


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Compare as in table 1, with the report's choices for this network."""
    return comparison.compare(Study(config, scratch), REPORTED, config.bases)


def draw(record: dict[str, Any]) -> Figure:
    """Accuracies as reported and under control, and the paired differences."""
    return comparison.figure(record, {name: name for name in REPORTED})


def answer(record: dict[str, Any]) -> str:
    """Whether the very simple model profits."""
    numbers = record["numbers"]
    last = {name: columns["last"] for name, columns in numbers["reported"].items()}
    as_reported = [
        compared(f"Adam + {name}", "Adam", paired(last[name], last["Adam"]))
        for name in ("SAM", "ASAM")
    ]
    fair = comparison.gains(numbers, "equal_gradients")
    same, longer = (
        [compared(name, "its base", gain) for name, gain in comparison.gains(numbers, key).items()]
        for key in ("equal_epochs", "equal_gradients")
    )
    return (
        decided(
            no_gain(fair.values()),
            "The very simple model does not profit from sharpness awareness",
            "The very simple model does profit from sharpness awareness",
        )
        + f", at this size and at equal cost. As the report ran it: {'; '.join(as_reported)}. "
        f"Tuned, at equal epochs: {'; '.join(same)}; at equal gradients: {'; '.join(longer)}."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """The report's sentence, as reported and under control."""
    numbers = record["numbers"]
    last = {name: numbers["reported"][name]["last"] for name in REPORTED}
    same, fair = (comparison.gains(numbers, key) for key in ("equal_epochs", "equal_gradients"))
    lead = {f"{name} on Adam": paired(last[name], last["Adam"]) for name in ("SAM", "ASAM")}
    level = f"Adam {mean(last['Adam'])} %; "
    return [
        judged(
            record,
            "The very simple model is not improved by sharpness awareness (as reported: Adam 1e-3 "
            "for all, rho 0.05 and 0.5; under control: tuned, as many epochs)",
            "stated, without numbers",
            (level + comparison.listed(lead), no_gain(lead.values())),
            (comparison.listed(same), no_gain(same.values())),
        ),
        judged(
            record,
            "Nor is it at equal gradients: the base trains for twice the epochs",
            "not asked",
            (comparison.listed(fair), no_gain(fair.values())),
            own=True,
        ),
    ]


def tables(record: dict[str, Any]) -> list[Table]:
    """Accuracies, differences, and what was chosen from what."""
    return [*comparison.tables(record), search_table(record)]


def notes(record: dict[str, Any]) -> list[str]:
    """How this was done, and what it cannot say."""
    epochs = record["config"]["epochs"]
    short = (
        [f"**Shorter than the report's**: {epochs} epochs instead of 200."] if epochs < 200 else []
    )
    return [
        "**The network**: two convolutions of 5 × 5 with 6 and 16 channels, pooling, and linear "
        "layers of 120, 84 and 10 units; no normalization. It is too small to fit all of CIFAR-10, "
        "and overfits few images: train − test below says whether there was anything for a flat "
        "minimum to mend.",
        *short,
        HOW,
        *limits(record, "this cnn, trained for 200 epochs on all 50,000 images"),
    ]
