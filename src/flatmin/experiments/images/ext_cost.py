"""What sharpness awareness costs, and what is left of it for less.

Claim: A training step with SAM or ASAM takes two gradients; is there a cheaper form that keeps the
gain?
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.compare.optimizers import flat
from flatmin.compare.pairing import commits, ends
from flatmin.compare.statistics import mean
from flatmin.experiments.images import _forms as forms
from flatmin.experiments.images._cost_panels import panels
from flatmin.experiments.images._cost_table import tables
from flatmin.experiments.images._cost_words import answer, check, finding
from flatmin.experiments.images._seconds import seconds_of_whole_runs
from flatmin.experiments.images._setting import Setting, SettingOptions
from flatmin.record.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FULL", "QUICK", "answer", "check", "draw", "finding", "notes", "run", "tables"]


@dataclass(frozen=True, kw_only=True)
class Config(SettingOptions):
    """Wrong labels, which a small network soon knows by heart, so that there is much to gain."""

    model: str = "mlp-2-256"
    images: int | None = 5_000
    pixels: int = 16
    augment: bool = False
    epochs: int = 40
    precision: str = "fp32"
    validation: int = 10_000
    evaluate_every: int = 40
    noise: float = 0.4
    """Share of the training labels that are replaced by another class at random."""
    trials: int = 8
    """Choices of learning rate, weight decay and radius that are tried for each form."""
    rounds: int = 9
    """How often seconds are measured, side by side."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trials < 1 or self.rounds < 1:
            raise ValueError(
                f"trials and rounds must be at least 1, got {self.trials} and {self.rounds}."
            )


FULL = Config()
QUICK = Config(
    seeds=2, images=400, epochs=4, evaluate_every=4, validation=100, test_images=200,
    evaluate_train=400, trials=2, rounds=1,
)  # fmt: skip


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Search as often for each form, train from the same starts, and take the time."""
    study = Setting(config, scratch, noise=config.noise)
    tried, chosen = {}, {}
    for form in progress(forms.FORMS, "search: forms"):
        epochs = form.epochs(config.search_epochs or config.epochs)
        choices = forms.trials(form, config.trials)
        scores = [
            study.validate(choice, epochs) for choice in progress(choices, f"search: {form.name}")
        ]
        best = scores.index(max(scores))
        chosen[form.name] = choices[best]
        tried[form.name] = {
            "choices": [flat(choice) for choice in choices],
            "accuracy": [accuracy for accuracy, _ in scores],
            "best": best,
        }
    runs = study.train(
        {form.name: (form.epochs(config.epochs), chosen[form.name]) for form in forms.FORMS},
        "ext_cost: all forms",
    )
    taken = seconds_of_whole_runs(
        study, {form.name: chosen[form.name] for form in forms.FORMS}, config.rounds
    )
    base = min(taken["SGD"])
    return {
        **study.describe(),
        "search": tried,
        "chosen": chosen,
        "forms": {
            form.name: {
                **ends(runs[form.name], form.epochs(config.epochs)),
                "gradients": _gradients(runs[form.name], runs["SGD"]),
                "seconds": form.multiple * min(taken[form.name]) / base,
            }
            for form in forms.FORMS
        },
        "seconds": taken,
        "commits": commits(runs),
    }


def draw(record: dict[str, Any]) -> Figure:
    """Accuracy against gradients and against seconds."""
    return panels(record)


def notes(record: dict[str, Any]) -> list[str]:
    """What the forms are, and how they were compared."""
    numbers, config = record["numbers"], record["config"]
    bad = [
        f"{name} (seed {seed}: {reason})"
        for name, form in numbers["forms"].items()
        for seed, reason in enumerate(form["diverged"])
        if reason
    ]
    return [
        "**Forms.** " + " ".join(f"{form.name}: {form.words}." for form in forms.FORMS),
        f"**Wrong labels**: {config['noise']:.0%} of the training labels are replaced by another "
        "class at random. A network that learns them by heart loses by it, so there is much to "
        "gain, and what is gained can be told apart. On right labels gains are smaller, or none: "
        "see table 1. The whole gain is that of SAM or of ASAM, whichever was better on held-out "
        "images.",
        f"**Fair**: the same starts and batches; {config['trials']} trials for every form, the "
        "same points of learning rate and weight decay for all, with a radius each for those that "
        "have one, spread evenly (Sobol) over their ranges on a logarithmic scale; each form is "
        "tried at its own full length, and chosen by accuracy on held-out images, whose labels are "
        "as wrong, on a start that is not counted; SGD with momentum 0.9 and a cosine of its own, "
        "label smoothing 0.1; last epoch.",
        _luck(numbers, config["validation"]),
        "**Seconds** are measured side by side, the fastest of "
        f"{config['rounds']} rounds, on a machine that may have been shared; gradients are "
        "counted.",
        f"**Measured on** {numbers['source']}; tested on {numbers['test_source']}. The network is "
        f"{config['model']} with {numbers['parameters']:,} parameters, trained for "
        f"{config['epochs']} epochs. Runs were made at commit {', '.join(numbers['commits'])}.",
        *([f"**Diverged**, and left out of means and pairs: {'; '.join(bad)}."] if bad else []),
    ]


def _luck(numbers: dict[str, Any], images: int) -> str:
    """How far a choice on so many held-out images is to be trusted."""
    share = max(max(looked["accuracy"]) for looked in numbers["search"].values()) / 100
    error = 100 * math.sqrt(share * (1 - share) / images)
    return (
        f"**Choices** are made on {images:,} held-out images, which leaves a standard error of "
        f"{error:.1f} points in the accuracy of each trial: of trials that are closer than that "
        "one is chosen by luck, and a form may be held back by its choice. The table of the search "
        "shows what each got. SGD counts at the length that was best on these images."
    )


def _gradients(runs: list[dict[str, Any]], base: list[dict[str, Any]]) -> float | None:
    """Gradients in all, in multiples of the base's."""
    pairs = zip(runs, base, strict=True)
    ratios = {
        round(one["gradients"] / other["gradients"], 4)
        for one, other in pairs
        if "diverged" not in one and "diverged" not in other
    }
    return mean(sorted(ratios)).value if ratios else None
