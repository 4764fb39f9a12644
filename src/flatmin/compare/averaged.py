"""The mean of the weights of a run's last epochs, in place of its last weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from flatmin.data import Batches, DataSet
from flatmin.objective._batches import arguments
from flatmin.train import TrainConfig, checkpoints, load_checkpoint


def averaged_epochs(epochs: int) -> int:
    """How many of the last epochs are averaged: a quarter, at least two where there are two.

    Example:
        >>> [averaged_epochs(n) for n in (1, 4, 40)]
        [1, 2, 10]
    """
    return min(epochs, max(2, math.ceil(epochs / 4)))


def averaged(network: nn.Module, folder: Path, config: TrainConfig, data: DataSet) -> nn.Module:
    """Average the weights at the ends of the last epochs.

    The statistics of BatchNorm are made anew on the training examples, as the mean of weights has
    others than any of them.

    Args:
        network: As it was trained last; it is filled anew.
        folder: Where a checkpoint of each of the last epochs lies.
        config: The run's configuration.
        data: What it was trained on.

    Returns:
        The network with averaged weights.

    Source:
        Izmailov et al. 2018, arXiv:1803.05407, algorithm 1, with the run's own schedule.
    """
    found = sorted(checkpoints(folder), key=lambda path: int(path.name.split("-")[1]))
    mean = AveragedModel(network)
    for path in found[-averaged_epochs(config.epochs) :]:
        network.load_state_dict(load_checkpoint(path)["network"])
        mean.update_parameters(network)
    device = next(network.parameters()).device

    def inputs() -> Iterator[Any]:
        batches = Batches(data.to(device), config.batch_size, shuffle=False, dtype=config.dtype)
        for given, _ in batches:
            yield (given,)

    whole = mean.module
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in whole.modules()):
        update_bn(inputs(), _Called(whole))
    return whole


class _Called(nn.Module):
    """A network that takes its inputs in one piece, as ``update_bn`` gives them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Any) -> Any:
        args, kwargs = arguments(inputs)
        with torch.no_grad():
            return self.network(*args, **kwargs)
