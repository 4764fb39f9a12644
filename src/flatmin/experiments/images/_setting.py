"""What all runs of a study have in common: network, data, length, and how choices are judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from flatmin.compare.pairing import by_seed
from flatmin.compare.runs import Runs
from flatmin.experiments.images._data import ImageOptions, load, with_wrong_labels
from flatmin.train import TrainConfig
from flatmin.train.networks import build_network

_SEARCH_SEED = 1_000_000  # no seed of the study: nobody is chosen for luck that is then counted

FOLDER = "runs"


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(ImageOptions):
    """What is trained, and for how long."""

    shares: ClassVar = (FOLDER,)

    seeds: int = 5
    """Number of starts, each with its own batches; all optimizers share them."""
    model: str = "wrn-28-10"
    """Network: wrn-D-W, mlp-D-W or cnn."""
    epochs: int = 50
    """Passes over the training images."""
    device: str = "cpu"
    """Where to compute; the defaults are meant for cuda."""
    precision: str = "bf16"
    """Floating type of the convolutions: bf16 (autocast) or fp32."""
    evaluate_train: int = 10_000
    """Training images on which accuracy is evaluated without augmentation."""
    evaluate_every: int = 1
    """Epochs between evaluations; a divisor of the epochs."""

    def __post_init__(self) -> None:
        if self.evaluate_every < 1 or self.epochs % self.evaluate_every:
            raise ValueError(
                f"evaluate_every must be a divisor of the {self.epochs} epochs, "
                f"got {self.evaluate_every}."
            )


@dataclass(frozen=True, kw_only=True)
class SettingOptions(TrainingOptions):
    """How choices are judged, too."""

    validation: int = 5_000
    """Training images that are held out to choose by, and only then; beyond ``images``, if set."""
    search_epochs: int | None = None
    """Epochs of each run of the search; none for as many as in the study."""


class Training:
    """The runs of one study; each is computed when it is first asked for, and then kept.

    Args:
        options: What is trained.
        scratch: The item's scratch folder.
        hundred: Folder of CIFAR-100, which then takes the place of CIFAR-10.
        noise: Share of the training labels that are wrong.

    Attributes:
        data: Training and test set.
        runs: Runs on them.
    """

    def __init__(
        self,
        options: TrainingOptions,
        scratch: Path,
        *,
        hundred: str | None = None,
        noise: float = 0.0,
    ) -> None:
        self.options = options
        self._where, self._hundred, self._noise = kept_in(scratch), hundred, noise
        self.runs = self._runs(options.images)
        self.data = self.runs.data

    def _runs(self, images: int | None) -> Runs:
        options = replace(self.options, images=images)
        train, test = load(options, options.model, hundred=self._hundred)
        return Runs((with_wrong_labels(train, self._noise), test), self._where, options.device)

    def config(self, epochs: int, **choices: Any) -> TrainConfig:
        """What all runs of the study have in common, and what is special about one."""
        return TrainConfig(
            **{
                "model": self.options.model,
                "epochs": epochs,
                "label_smoothing": 0.1,
                "precision": self.options.precision,
                "channels_last": True,
                "evaluate_train": self.options.evaluate_train,
                "evaluate_every": self.options.evaluate_every,
                **choices,
            }
        )

    def train(
        self, ways: Mapping[str, tuple[int, dict[str, Any]]], description: str
    ) -> dict[str, list[dict[str, Any]]]:
        """Train in each way, (epochs, choices), from each start; give the runs by name and seed."""

        def run(seed: int, way: tuple[int, dict[str, Any]]) -> dict[str, Any]:
            epochs, choices = way
            return self.runs(self.config(epochs, seed=seed, **choices))

        return by_seed(run, ways, self.options.seeds, description)

    def describe(self) -> dict[str, Any]:
        """What the numbers were measured on."""
        train, test = self.data
        network = build_network(
            self.options.model,
            classes=len(train.classes),
            channels=train.images.shape[1],
            pixels=train.images[0, 0].numel(),
        )
        return {
            "source": train.source,
            "test_source": test.source,
            "train_images": len(train),
            "test_images": len(test),
            "parameters": sum(p.numel() for p in network.parameters()),
        }


class Setting(Training):
    """A study in which learning rates and radii are chosen, too."""

    options: SettingOptions

    @cached_property
    def _search(self) -> Runs:
        # Of images that are left over, the search holds out as many as it can.
        return self._runs(self.options.images and self.options.images + self.options.validation)

    def validate(self, choice: dict[str, Any], epochs: int | None = None) -> tuple[float, float]:
        """Validation accuracy, and minus the loss for the case of a tie; the larger the better."""
        epochs = epochs or self.options.search_epochs or self.options.epochs
        validation = min(self.options.validation, len(self._search.data[0]) // 2)
        run = self._search(
            self.config(
                epochs,
                seed=_SEARCH_SEED,
                validation=validation,
                evaluate_every=epochs,
                **choice,
            )
        )
        if "diverged" in run:
            return 0.0, -math.inf
        accuracy, loss = run["validation"]
        return accuracy, -loss if math.isfinite(loss) else -math.inf


def kept_in(scratch: Path) -> Path:
    """The folder of runs that all image items share, beside their results.

    It is worth keeping with them: what is finished there, no machine does again.
    """
    folder = scratch.parent.parent / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder
