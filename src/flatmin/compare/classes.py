"""Whether the targets of a task are classes, so that its runs are compared by their accuracy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flatmin.compare.task import Task
from flatmin.data import DataSet
from flatmin.train import evaluate

_AT_ONCE = 256


def has_classes(task: Task) -> bool:
    """Whether every target names an output of the network.

    It is asked of all data at once: of counts a part may hold 0 and 1 alone by chance, and its
    accuracy must not be compared with the loss of the others.

    Args:
        task: Has network and data, and may have a loss of its own.

    Returns:
        True without such a loss, for cross-entropy takes nothing else.
    """
    if task.loss is None:
        return True
    if task not in _known:
        network = task.model(0)
        _known[task] = all(
            not math.isnan(
                evaluate(network, part.subset(rows), config=task.config, loss=task.loss)[1]
            )
            for part in task.parts(0)
            for rows in _ends(part)
        )
    return _known[task]


_known: dict[Task, bool] = {}


def _ends(part: DataSet) -> list[Tensor]:
    """The examples with the lowest and with the highest target; of numbers only the first."""
    lowest, highest = [], []
    for start in range(0, len(part), _AT_ONCE):
        rows = torch.arange(start, min(start + _AT_ONCE, len(part)))
        targets = part.batch(rows, None, dtype=torch.float32)[1].cpu()
        if targets.is_floating_point():
            return [rows[:1]]
        each = targets.reshape(len(rows), -1)
        lowest.append(each.amin(dim=1))
        highest.append(each.amax(dim=1))
    return [torch.cat(lowest).argmin()[None], torch.cat(highest).argmax()[None]]
