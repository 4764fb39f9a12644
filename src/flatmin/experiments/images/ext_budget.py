"""A limited number of epochs: what sharpness awareness is worth when there is less time.

Claim: On a large model, when the number of training epochs is limited, sharpness aware optimizers
yield significantly better performances.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.compare.optimizers import flat
from flatmin.compare.pairing import commits, ends
from flatmin.compare.statistics import Mean, mean, paired, signed
from flatmin.compare.verdict import RULE
from flatmin.experiments.images._budget_panels import panels
from flatmin.experiments.images._budget_words import AWARE, BASES, answer, check
from flatmin.experiments.images._forms import FORMS, trials
from flatmin.experiments.images._setting import Setting, SettingOptions
from flatmin.record.item import Table
from flatmin.record.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FULL", "QUICK", "answer", "check", "draw", "notes", "run", "tables"]

ARMS = {form.name: form for form in FORMS if form.name in ("SGD", "SGD × 2", "SAM", "ASAM")}


@dataclass(frozen=True, kw_only=True)
class Config(SettingOptions):
    """The same training for fewer and fewer epochs, each with a search of its own."""

    model: str = "mlp-2-256"
    images: int | None = 2_500
    pixels: int = 16
    augment: bool = False
    epochs: int = 40
    precision: str = "fp32"
    validation: int = 10_000
    evaluate_train: int = 2_500
    parts: tuple[float, ...] = (0.05, 0.125, 0.25, 0.5, 1.0)
    """Shares of the epochs, in increasing order, to which training is cut."""
    noise: tuple[float, ...] = (0.0, 0.4)
    """Shares of the training labels that are wrong; a gain is known to be there where some are."""
    trials: int = 8
    """Choices of learning rate, weight decay and radius that are tried for each arm and length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            list(self.parts) != sorted(set(self.parts))
            or not 0 < self.parts[0] <= self.parts[-1] <= 1
        ):
            raise ValueError(
                f"parts must be shares of the epochs in increasing order, got {self.parts}."
            )
        if self.trials < 1 or not self.noise:
            raise ValueError(
                f"trials and noise must not be empty, got {self.trials} and {self.noise}."
            )


FULL = Config()
QUICK = Config(
    seeds=2, images=400, epochs=4, parts=(0.25, 1.0), noise=(0.0,), validation=100,
    test_images=200, evaluate_train=400, trials=2,
)  # fmt: skip


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """At each length, search as often for each arm, and train from the same starts."""
    levels, made = [], []
    for share in config.noise:
        study = Setting(config, scratch, noise=share)
        lengths = []
        for part in progress(config.parts, f"ext_budget: lengths, {share:.0%} wrong labels"):
            epochs = max(1, round(part * config.epochs))
            arms = {}
            for name, form in ARMS.items():
                length = form.epochs(epochs)
                choices = trials(form, config.trials)
                scores = [study.validate(choice, length) for choice in choices]
                best = scores.index(max(scores))
                runs = study.train(
                    {name: (length, {**choices[best], "evaluate_every": length})},
                    f"ext_budget: {name}, {length} epochs",
                )
                made.append(runs)
                arms[name] = {
                    "epochs": length,
                    "chosen": flat(choices[best]),
                    "accuracy": [accuracy for accuracy, _ in scores],
                    **ends(runs[name], length),
                }
            lengths.append({"epochs": epochs, "arms": arms})
        levels.append({"noise": share, "lengths": lengths})
    clean = Setting(config, scratch)
    return {**clean.describe(), "levels": levels, "commits": commits(*made)}


def draw(record: dict[str, Any]) -> Figure:
    """Accuracy against gradients, and the gains against the length."""
    return panels(record)


def tables(record: dict[str, Any]) -> list[Table]:
    """Accuracy of each arm at each length, with the gains and what was chosen."""
    rows = [
        [
            f"{level['noise']:.0%}",
            name,
            arm["epochs"],
            length["epochs"] * (1 if name == "SGD" else 2),
            str(mean(arm["last"])),
            *(
                signed(paired(arm["last"], length["arms"][base]["last"])) if name in AWARE else ""
                for base in BASES
            ),
            str(mean(arm["train"])),
            arm["chosen"]["lr"],
            arm["chosen"]["decay"],
            arm["chosen"]["rho"],
        ]
        for level, length, name, arm in _arms(record)
    ]
    header = ("wrong labels", "arm", "epochs", "gradients, in epochs", "test", *BASES.values())
    return [
        Table(
            "Accuracy in %, last epoch, mean ± standard error over seeds; gains in points over SGD "
            "at equal epochs and at equal gradients, paired by seed, with 95 % intervals; and what "
            "was chosen",
            (*header, "train", "lr", "weight decay", "rho"),
            rows,
        )
    ]


def notes(record: dict[str, Any]) -> list[str]:
    """How it was done, and what it cannot say."""
    numbers, config = record["numbers"], record["config"]
    return [
        "**Fair**: at each length every arm has a search of its own, with as many trials "
        f"({config['trials']}) of learning rate, weight decay and radius, at its own full length, "
        "chosen on held-out images on a start that is not counted; the same starts and batches for "
        "all; SGD with momentum 0.9 and a cosine that ends with the last epoch; label smoothing "
        "0.1. SGD × 2 has trained for twice the epochs, which is as many gradients as SAM's and "
        "ASAM's.",
        f"**Where the gain comes from**: {'; '.join(map(_best, numbers['levels']))}. These lengths "
        "are chosen on the test set and are an outlook, no result: where longer training makes "
        "SGD worse, what is gained over it at that length is in part its loss.",
        RULE,
        f"**Measured on** {numbers['source']}; tested on {numbers['test_source']}. The network is "
        f"{config['model']} with {numbers['parameters']:,} parameters, trained for at most "
        f"{config['epochs']} epochs; the report's is wrn-28-10 with 36,479,194, trained for 50 on "
        "all 50,000 images: the sentence is about a large model, and this is a small one. Runs "
        f"were made at commit {', '.join(numbers['commits'])}.",
    ]


def _arms(record: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any], str, Any]]:
    for level in record["numbers"]["levels"]:
        for length in level["lengths"]:
            for name, arm in length["arms"].items():
                yield level, length, name, arm


def _best(level: dict[str, Any]) -> str:
    """At which length each arm is best in the mean."""
    found: dict[str, tuple[Mean, int]] = {}
    for length in level["lengths"]:
        for name, arm in length["arms"].items():
            reached = mean(arm["last"]), arm["epochs"]
            name = "SGD" if name == "SGD × 2" else name
            found[name] = max(found.get(name, reached), reached, key=lambda pair: pair[0].value)
    best = ", ".join(f"{name} {value} % at {epochs}" for name, (value, epochs) in found.items())
    return f"with {level['noise']:.0%} of the labels wrong the best length is for {best} epochs"
