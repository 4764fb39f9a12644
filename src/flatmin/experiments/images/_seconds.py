"""Seconds per epoch of several optimizers, measured side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from flatmin.experiments.images._setting import Setting
from flatmin.record.progress import progress
from flatmin.train import train


def seconds(
    study: Setting, ways: Mapping[str, dict[str, Any]], rounds: int
) -> dict[str, list[float]]:
    """Seconds per epoch of each way, one number a round, measured side by side.

    Args:
        study: Gives network, images and device.
        ways: What to compare.
        rounds: How often; one optimizer follows the other, so that all meet the same machine.

    Returns:
        Seconds by name; extrapolated from ten batches.
    """
    # The first epoch warms up: memory, and kernels for these shapes.
    return {
        name: [epochs[-1] for epochs in turns]
        for name, turns in _turns(study, ways, rounds, epochs=2).items()
    }


def seconds_of_whole_runs(
    study: Setting, ways: Mapping[str, dict[str, Any]], rounds: int
) -> dict[str, list[float]]:
    """The same where steps of one run differ: the mean over the epochs of a short run.

    Args:
        study: Gives network, images and device.
        ways: What to compare; what they do in a part of the steps, they do in that part of ten
            epochs.
        rounds: How often.

    Returns:
        Seconds per epoch by name; extrapolated from ten batches.
    """
    _turns(study, ways, 1, epochs=2)  # warms up
    return {
        name: [sum(epochs) / len(epochs) for epochs in turns]
        for name, turns in _turns(study, ways, rounds, epochs=10).items()
    }


def _turns(
    study: Setting, ways: Mapping[str, dict[str, Any]], rounds: int, *, epochs: int
) -> dict[str, list[list[float]]]:
    """Seconds of each epoch of each round."""
    images, test = study.data
    size = study.config(1).batch_size
    few = min(len(images), 10 * size)
    pair = images.subset(torch.arange(few)), test.subset(torch.arange(min(len(test), 100)))
    taken: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in progress(range(rounds), "seconds: rounds"):
        for name, choices in ways.items():
            quiet = {"evaluate_train": 0, "evaluate_every": epochs}
            config = study.config(epochs, **{**choices, **quiet})
            history = train(config, pair, device=study.options.device).history
            taken[name].append([epoch.seconds * len(images) / few for epoch in history])
    return taken
