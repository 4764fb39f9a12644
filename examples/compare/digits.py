"""Images: a small convolutional network on scikit-learn's digits."""

from __future__ import annotations

from torch import nn

from flatmin.data import ImageSet, load_digits
from flatmin.train import TrainConfig

config = TrainConfig(
    model="own",
    optimizer="sgd",
    lr=0.05,
    options={"momentum": 0.9, "weight_decay": 5e-4},
    batch_size=64,
)


def model() -> nn.Module:
    """Two convolutions and a linear layer, 5,226 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def data() -> tuple[ImageSet, ImageSet]:
    """1,437 images to train on, 360 to test on."""
    return load_digits()
