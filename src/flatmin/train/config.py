"""What a training run is: every choice that its numbers depend on."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from flatmin.train._values import fitted
from flatmin.train.networks import build_network
from flatmin.train.optimizers import build_optimizer, fitted_options

SCHEDULES = ("none", "cosine", "cosine-by-epoch")
PRECISIONS = ("fp32", "bf16", "fp16", "fp64")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What is trained, on which batches, and how.

    Every field is checked and made plain when the configuration is made: numbers of numpy and torch
    become Python's, lists in ``options`` tuples, so that one read from JSON equals the one written.

    Two runs with the same configuration, data, device, number of threads and number of processes
    end with the same bits. The start and the batches depend on ``seed``, ``model`` and the data
    alone, so runs that differ in the optimizer are paired.

    Attributes:
        model: ``cnn``, the report's small network; ``wrn-D-W``, a WideResNet of depth D and width
            W; ``mlp-D-W``, a perceptron with D hidden layers of width W; or ``own``, the network
            that is handed to ``train``.
        epochs: Passes over the training set.
        batch_size: Examples per step, over all processes and accumulated pieces together.
        optimizer: Name of a class of ``torch.optim``, in any case: ``sgd``, ``adam``, ``adamw``.
        lr: Its peak learning rate.
        options: Its other arguments, such as ``{"momentum": 0.9, "weight_decay": 5e-4}``.
        minimizer: ``none``, or an optimizer of flatmin to wrap around it: ``sam``, ``asam``,
            ``gsam``, ``friendlysam``, ``wsam``, ``ssam``, ``msam``, ``asyncsam``.
        rho: Radius of the ball; None for the minimizer's default.
        eta: Added to ``|w|``, in parameter units; None for the minimizer's default.
        biases: Whether biases are scaled too; None for the minimizer's default.
        p: Order of the norm, also ``inf`` (or its text, for JSON has none); None for the
            minimizer's default.
        when: In which steps the minimizer perturbs: ``always``; ``every-K``, one of K; ``last-F``,
            the last part F of all steps, or ``last-F-ramp-R``, with a radius that grows over R
            steps; ``chance-Q``, with probability Q; ``large``, where the gradient is large. A step
            that does not takes one gradient.
        perturb: Which parameters it perturbs: ``all``, or ``norms``, those of normalization layers
            alone.
        schedule: ``none``; ``cosine`` from the peak to zero, step by step; ``cosine-by-epoch``,
            the same with one value for a whole epoch.
        warmup: Epochs in which the learning rate first rises linearly.
        label_smoothing: Part of the target spread evenly over the classes, in [0, 1).
        precision: ``fp32``; ``bf16`` or ``fp16`` (autocast, weights in fp32, fp16 with a loss
            scale); ``fp64``.
        channels_last: Whether images and their weights lie channel by channel in memory: faster
            convolutions.
        accumulation: Pieces into which each batch is cut to save memory. The gradient is the same;
            only BatchNorm sees smaller batches.
        compile: Whether to compile the network with ``torch.compile``.
        drop_last: Whether to leave out a smaller last batch.
        validation: Examples of the training set that are held out, to choose hyperparameters by;
            the same ones whatever the seed.
        evaluate_train: Training examples, always the same, on which loss and accuracy are evaluated
            without augmentation, as on the test set.
        evaluate_every: Epochs between evaluations; the last epoch is always evaluated.
        seed: Chooses the start and the batches.
        crop_padding: Deprecated: crops belong to the image set, as its ``augment``.
        flip: Deprecated: flips belong to the image set, as its ``augment``.

    Raises:
        TypeError: If a value is of the wrong kind: a text is no number, and no boolean.
        ValueError: If a value is out of range, or a name or option unknown.

    Example:
        >>> config = TrainConfig(model="wrn-10-1", minimizer="asam", rho=0.5, epochs=3)
        >>> config.optimizer, config.lr
        ('sgd', 0.1)
        >>> TrainConfig(minimizer="sam", eta=0.1)
        Traceback (most recent call last):
        ValueError: The minimizer sam has no eta; leave it out or choose another minimizer.
    """

    model: str = "cnn"
    epochs: int = 50
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.1
    options: Mapping[str, Any] = field(default_factory=dict)
    minimizer: str = "none"
    rho: float | None = None
    eta: float | None = None
    biases: bool | None = None
    p: float | None = None
    when: str = "always"
    perturb: str = "all"
    schedule: str = "cosine"
    warmup: float = 0.0
    label_smoothing: float = 0.0
    precision: str = "fp32"
    channels_last: bool = False
    accumulation: int = 1
    compile: bool = False
    drop_last: bool = False
    validation: int = 0
    evaluate_train: int = 10_000
    evaluate_every: int = 1
    seed: int = 0
    crop_padding: int | None = None
    flip: bool | None = None

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            value = fitted(name, getattr(self, name), kind, infinite=name == "p")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "options", fitted_options(self))
        for name in ("epochs", "batch_size", "accumulation", "evaluate_every"):
            _check_count(name, getattr(self, name), least=1)
        for name in ("validation", "evaluate_train", "seed"):
            _check_count(name, getattr(self, name), least=0)
        if self.crop_padding is not None:
            _check_count("crop_padding", self.crop_padding, least=0)
        if self.accumulation > self.batch_size:
            raise ValueError(
                f"accumulation must be at most batch_size, {self.batch_size}, got "
                f"{self.accumulation}: a piece needs an example."
            )
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_choice("precision", self.precision, PRECISIONS)
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}.")
        if not 0.0 <= self.warmup <= self.epochs:
            raise ValueError(
                f"warmup must lie between 0 and epochs, {self.epochs}, got {self.warmup}."
            )
        if self.seed >= 2**64:
            raise ValueError(f"seed must be below 2**64, got {self.seed}.")
        if not self.lr > 0.0:
            raise ValueError(f"lr must be positive, got {self.lr}.")
        comparing = {"when=large": self.when == "large"}
        comparing["minimizer=friendlysam"] = self.minimizer.lower() == "friendlysam"
        if self.precision == "fp16" and any(comparing.values()):
            raise ValueError(
                f"{next(name for name, chosen in comparing.items() if chosen)} compares the "
                "gradients of different steps, and fp16 changes their scale; choose bf16."
            )
        # What cannot be built is refused here, not hours later on another machine. Of an own
        # network nothing is known yet: a matrix is what every optimizer takes, and what is to be
        # perturbed is there.
        with torch.device("meta"):
            network: nn.Module = (
                _stand_in(self.perturb)
                if self.model == "own"
                else build_network(self.model, classes=1, channels=1)
            )
        # Empty, since a start would draw from the caller's random state.
        build_optimizer(self, network.to_empty(device="cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of weights and images."""
        return torch.float64 if self.precision == "fp64" else torch.float32

    @property
    def autocast(self) -> torch.dtype | None:
        """Floating type that autocast computes in, if it is used."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)


def _stand_in(perturb: str) -> nn.Module:
    return nn.LayerNorm(1) if perturb == "norms" else nn.Linear(1, 1, bias=False)


def _check_count(name: str, value: int, *, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
