"""What the tasks on tables share: a split of its own for each seed, and a small perceptron."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flatmin._streams import stream
from flatmin.data import TensorSet
from flatmin.train import TrainConfig

CONFIG = TrainConfig(model="own", optimizer="adamw", lr=3e-3, batch_size=32)

_TESTED = 5  # one in so many examples


def perceptron(features: int, classes: int) -> nn.Module:
    """Two hidden layers of 64 units."""
    return nn.Sequential(
        nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, classes)
    )


def split(raw: Any, labels: Any, source: str, seed: int) -> tuple[TensorSet, TensorSet]:
    """Four fifths to train on and a fifth to test on, scaled by the former."""
    inputs, targets = torch.tensor(raw, dtype=torch.float32), torch.tensor(labels)
    order = torch.randperm(len(inputs), generator=stream("split of a table", seed))
    test, train = order[: len(order) // _TESTED], order[len(order) // _TESTED :]
    middle = inputs[train].mean(dim=0)
    spread = inputs[train].std(dim=0)
    inputs = (inputs - middle) / torch.where(spread > 0, spread, 1.0)  # some are constant
    first, second = (TensorSet(inputs[part], targets[part], source) for part in (train, test))
    return first, second
