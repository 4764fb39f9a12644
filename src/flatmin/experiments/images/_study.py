"""The study behind table 1 and figure 7: six optimizers on the same network, start and batches.

*As reported*: Adam without weight decay and at a constant learning rate; SAM and ASAM around SGD
with weight decay and cosine. *Controlled*: SGD and Adam, each alone, with SAM and with ASAM, all
with a cosine of their own; learning rate, weight decay and radius chosen on a held-out part of the
training set; and the base optimizers once more for twice the epochs, which is as many gradients as
SAM and ASAM evaluate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from flatmin.compare.arms import OPTIMIZERS, base_arm
from flatmin.compare.pairing import by_seed
from flatmin.compare.runs import Runs
from flatmin.compare.search import search
from flatmin.experiments.images._data import ImageOptions, load, with_wrong_labels
from flatmin.train import TrainConfig
from flatmin.train.networks import build_network

# What the report's code did; its "SAM" and "ASAM" are wrapped around SGD.
_SGD = {"optimizer": "sgd", "lr": 0.1, "schedule": "cosine-by-epoch"}
_SGD |= {"options": {"momentum": 0.9, "weight_decay": 5e-4}}
REPORTED: dict[str, dict[str, Any]] = {
    "Adam": {"optimizer": "adam", "lr": 1e-3, "schedule": "none"},
    "SAM": {**_SGD, "minimizer": "sam", "rho": 0.05},
    "ASAM": {**_SGD, "minimizer": "asam", "rho": 0.5, "eta": 0.0},
}
_SEARCH_SEED = 1_000_000  # no seed of the study: nobody is chosen for luck that is then counted

FOLDER = "image-runs"


@dataclass(frozen=True, kw_only=True)
class StudyOptions(ImageOptions):
    """What is trained, for how long, and what is searched."""

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
    validation: int = 5_000
    """Training images that are held out to choose by, and only then; beyond ``images``, if set."""
    search_epochs: int | None = None
    """Epochs of each run of the search; none for as many as in the study."""
    sgd_lrs: tuple[float, ...] = (0.03, 0.1, 0.3)
    """Learning rates to choose from."""
    sgd_decays: tuple[float, ...] = (5e-4, 2e-3)
    """Weight decays to choose from."""
    adam_lrs: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Learning rates to choose from."""
    adam_decays: tuple[float, ...] = (0.0, 0.05, 0.5)
    """Decoupled weight decays to choose from; at 0 it is plain Adam."""
    sam_rhos: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    """Radii of SAM to choose from."""
    asam_rhos: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    """Radii of ASAM to choose from."""

    def __post_init__(self) -> None:
        if self.evaluate_every < 1 or self.epochs % self.evaluate_every:
            raise ValueError(
                f"evaluate_every must be a divisor of the {self.epochs} epochs, "
                f"got {self.evaluate_every}."
            )


# On two cores: half a minute on digits, one and a half on CIFAR.
QUICK_STUDY: dict[str, Any] = {
    "seeds": 2,
    "model": "wrn-10-1",
    "epochs": 4,
    "precision": "fp32",
    "images": 1_000,
    "test_images": 500,
    "pixels": 16,
    "evaluate_train": 500,
    "validation": 200,
    "search_epochs": 2,
    "sgd_lrs": (0.03, 0.1),
    "sgd_decays": (5e-4,),
    "adam_lrs": (1e-3, 3e-3),
    "adam_decays": (0.05,),
    "sam_rhos": (0.05, 0.1),
    "asam_rhos": (0.5, 1.0),
}


class Study:
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
        options: StudyOptions,
        scratch: Path,
        *,
        hundred: str | None = None,
        noise: float = 0.0,
    ) -> None:
        def runs(images: int | None) -> Runs:
            train, test = load(replace(options, images=images), options.model, hundred=hundred)
            pair = with_wrong_labels(train, noise), test
            return Runs(pair, kept_in(scratch), options.device)

        self.options = options
        self.runs = runs(options.images)
        self.data = self.runs.data
        # Of images that are left over, the search holds out as many as it can.
        self._search = runs(options.images and options.images + options.validation)

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

    def choose(self, names: Sequence[str] = tuple(OPTIMIZERS)) -> dict[str, Any]:
        """Choose learning rate and weight decay of each base, then each radius on top of them.

        Returns:
            ``chosen`` and ``search``, as :func:`search` gives them.
        """
        o = self.options
        grids = {
            "sgd": [base_arm("sgd", lr, d) for lr in o.sgd_lrs for d in o.sgd_decays],
            "adamw": [base_arm("adamw", lr, d) for lr in o.adam_lrs for d in o.adam_decays],
        }
        radii = {"sam": o.sam_rhos, "asam": o.asam_rhos}
        return search(names, grids, radii, self._validate)

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

    def _validate(self, choice: dict[str, Any]) -> tuple[float, float]:
        """Validation accuracy, and minus the loss for the case of a tie; the larger the better."""
        epochs = self.options.search_epochs or self.options.epochs
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
    """The folder of runs that all image items share, beside the scratch folders of the items."""
    folder = scratch.parent / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder
