"""Why a loss is not finite: whether the data already are not, or the training made it so."""

from __future__ import annotations

import math

import torch

from flatmin.compare.task import Task
from flatmin.data import DataSet
from flatmin.data._nested import leaves
from flatmin.train import evaluate

_AT_ONCE = 256


def check_finite(task: Task, seed: int, device: str) -> None:
    """Refuse data with numbers that are not finite, if an untrained network has no loss on them.

    It is asked where a loss was not finite, and costs a pass over the data then. A network that
    knows what to do with a missing value has a loss, and is left alone.

    Args:
        task: Whose data are looked through.
        seed: Of the run.
        device: Where the network is tried.

    Raises:
        ValueError: If such an example is found.
    """
    names = ("trained on", "held out", "tested on")
    for name, part in zip(names, task.parts(seed), strict=True):
        rows = _not_finite(part)
        if not len(rows):
            continue
        network, few = task.model(seed).to(device), part.subset(rows[:_AT_ONCE]).to(device)
        loss, _ = evaluate(network, few, config=task.config, loss=task.loss, metric=task.metric)
        if not math.isfinite(loss):
            raise ValueError(
                f"data() of {task.path.name}: {len(rows):,} of the {len(part):,} examples that are "
                f"{name} hold numbers that are not finite, and so is the loss of an untrained "
                "network on them; fill these in, or leave such examples out."
            )


def _not_finite(part: DataSet) -> torch.Tensor:
    """Which examples hold such numbers."""
    found = []
    for start in range(0, len(part), _AT_ONCE):
        rows = torch.arange(start, min(start + _AT_ONCE, len(part)))
        bad = torch.zeros(len(rows), dtype=torch.bool)
        for _, tensor in leaves(part.batch(rows, None, dtype=torch.float32)):
            bad |= ~torch.isfinite(tensor.cpu().reshape(len(rows), -1)).all(dim=1)
        found.append(rows[bad])
    return torch.cat(found)
