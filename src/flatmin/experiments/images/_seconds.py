"""Seconds per epoch of several optimizers, measured side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from flatmin.experiments.images._study import Study
from flatmin.record.progress import progress
from flatmin.train import train


def seconds(
    study: Study, ways: Mapping[str, dict[str, Any]], rounds: int
) -> dict[str, list[float]]:
    """Seconds per epoch of each way, one number a round, measured side by side.

    Args:
        study: Gives network, images and device.
        ways: What to compare.
        rounds: How often; one optimizer follows the other, so that all meet the same machine.

    Returns:
        Seconds by name; extrapolated from ten batches.
    """
    images, test = study.data
    size = study.config(1).batch_size
    few = min(len(images), 10 * size)
    pair = images.subset(torch.arange(few)), test.subset(torch.arange(min(len(test), 100)))
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in progress(range(rounds), "seconds: rounds"):
        for name, choices in ways.items():
            # The first epoch warms up: memory, and kernels for these shapes.
            config = study.config(2, **{**choices, "evaluate_train": 0, "evaluate_every": 2})
            history = train(config, pair, device=study.options.device).history
            taken[name].append(history[-1].seconds * len(images) / few)
    return taken
