"""A residual network on few small images, some of them with wrong labels, as a task to compare."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import nn

from flatmin.compare.runs import Pair
from flatmin.experiments.images._data import ImageOptions, load, with_wrong_labels
from flatmin.train import TrainConfig
from flatmin.train.networks import build_network


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What a task's file needs: its ``repr`` makes it again."""

    options: ImageOptions
    """Which images."""
    network: str
    """wrn-D-W, mlp-D-W or cnn."""
    precision: str
    """Floating type of the convolutions: bf16 (autocast) or fp32."""
    noise: float
    """Share of the training labels that are wrong."""

    @property
    def config(self) -> TrainConfig:
        """SGD as the report has it inside SAM; its rate is the middle of those that are tried."""
        options = {"momentum": 0.9, "weight_decay": 5e-4}
        return TrainConfig(
            model="own",
            optimizer="sgd",
            lr=0.1,
            options=options,
            precision=self.precision,
            channels_last=True,
        )

    def model(self) -> nn.Module:
        """A new network."""
        train, _ = self._sets
        return build_network(
            self.network,
            classes=len(train.classes),
            channels=train.images.shape[1],
            pixels=train.images[0, 0].numel(),
        )

    def data(self) -> Pair:
        """Training images, some with wrong labels, and test images with right ones."""
        return self._sets

    @cached_property
    def _sets(self) -> Pair:
        train, test = load(self.options, self.network)
        return with_wrong_labels(train, self.noise), test

    def file(self) -> str:
        """The text of a file that defines the task."""
        return (
            "from flatmin.experiments.images._data import ImageOptions\n"
            f"from flatmin.experiments.images._labels import Labels\n\nlabels = {self!r}\n"
            "config, model, data = labels.config, labels.model, labels.data\n"
        )
