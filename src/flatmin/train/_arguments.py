"""What ``train`` was called with: refused, or made what the loop works on."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.utils.data import Dataset

from flatmin.data import DataSet, ImageSet, as_data_set
from flatmin.train._conditions import own_defaults
from flatmin.train._moved import moved
from flatmin.train.config import TrainConfig
from flatmin.train.evaluate import classes_of
from flatmin.train.goal import Goal, Measure
from flatmin.train.networks import build_network


def checked(
    config: TrainConfig,
    data: object,
    model: nn.Module | None,
    loss: Measure | None,
    metric: Measure | None,
) -> tuple[TrainConfig, tuple[DataSet, DataSet], Goal]:
    """Refuse what cannot be trained, or not on these data; else what is trained, and the goal."""
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config must be a TrainConfig, got {type(config).__name__}.")
    pair = data if isinstance(data, list | tuple) else [data]
    if len(pair) != 2 or not all(isinstance(part, DataSet | Dataset) for part in pair):
        kinds = ", ".join(type(part).__name__ for part in pair)
        raise TypeError(
            "data must be two ImageSets, TensorSets or map-style data sets of torch, to train on "
            f"and to test on, got {kinds}."
        )
    if not isinstance(model, nn.Module | None):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    if (model is None) == (config.model == "own"):
        raise ValueError(
            f'model= and config.model="own" go together, but config.model is {config.model!r} and '
            f"model is {'None' if model is None else 'given'}."
        )
    params = [] if model is None else [*model.parameters()]
    if params and not any(p.requires_grad for p in params):
        raise ValueError("model must have a parameter with requires_grad; all of it is frozen.")
    if loss is not None and config.label_smoothing:
        raise ValueError(
            "label_smoothing belongs to the cross-entropy of classes, and loss is given; leave it "
            "out, and smooth in the loss."
        )
    train_set, test_set = as_data_set(pair[0]), as_data_set(pair[1])
    config, train_set = moved(config, train_set)
    return config, (train_set, test_set), Goal(loss, metric, classes_of(train_set))


def fresh(config: TrainConfig, train_set: DataSet) -> nn.Module:
    """A new network, from the seed alone: whatever the precision, it starts in single."""
    images = cast(ImageSet, train_set)  # else its name had been refused
    with own_defaults(torch.float32):
        return build_network(
            config.model,
            classes=len(images.classes),
            channels=images.images.shape[1],
            pixels=images.images[0, 0].numel(),
        )
