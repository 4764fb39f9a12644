"""A run that takes a fraction of a second, with everything that has a state: what tests train."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flatmin.data import ImageSet
from flatmin.train import TrainConfig


def image_set(count: int, seed: int, classes: int = 3, size: int = 8) -> ImageSet:
    """Random images whose brightness tells their class a little."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    noise = torch.randint(160, (count, 1, size, size), generator=generator)
    images = (noise + 40 * labels[:, None, None, None]).to(torch.uint8)
    return ImageSet(images, labels, tuple("abcdefgh"[:classes]), "made up", (0.5,), (0.25,))


DATA = (image_set(60, 0), image_set(20, 1))


class Small(nn.Module):
    """Dropout draws random numbers; BatchNorm keeps statistics."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, kernel_size=3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(144, classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def small(classes: int = 3) -> Small:
    """The same start every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small(classes)


def config(**changes: Any) -> TrainConfig:
    """Two epochs of six steps, with shuffling, crops and flips."""
    values = {"model": "own", "epochs": 2, "batch_size": 10, "crop_padding": 1, "lr": 0.05}
    return TrainConfig(**{**values, **changes})


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks agree in every bit, statistics included."""
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )
