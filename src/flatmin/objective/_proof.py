"""Whether a loss over data is one function of the parameters: evaluated, and evaluated again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from flatmin.objective import _checks as checks
from flatmin.objective._conditions import devices_of
from flatmin.objective._evaluation import Evaluated
from flatmin.objective._mean import MeanCheck
from flatmin.objective._processes import Processes
from flatmin.objective._weights import Weight

Pass = Callable[[Callable[[Evaluated], None]], None]
"""A pass over the data at the model's own parameters."""


def prove(model: nn.Module, run: Pass, processes: Processes, weight: Weight) -> str | None:
    """Refuse a loss that is no mean, no function, or another one where gradients are wanted.

    Returns:
        A sentence, where the one batch that there is must not be cut; or None.

    Raises:
        ValueError: If the loss is refused, in all processes.
    """
    mean, bypassed = MeanCheck(model, weight), list[str]()
    first = _losses(run, mean.look)
    # Another random state, so that dropout is caught even if the caller has seeded.
    for device in {torch.device("cpu"), *devices_of(model)}:
        torch.rand(1, device=device)
    with torch.enable_grad():
        second = _losses(run, lambda at: bypassed.extend(at.substitution.bypassed(at.loss)))
    processes.agree(next(iter(bypassed), None))
    if processes.total(checks.changed(first, second) is not None):
        third = _losses(run)
        processes.agree(checks.random_fault(first, third))
        processes.agree(checks.mode_fault(model, first, second))
    several = processes.total(len(first)) > 1
    processes.agree(mean.sums or (mean.mixes if several else None))
    return mean.mixes


def _losses(run: Pass, look: Callable[[Evaluated], None] = lambda at: None) -> list[float]:
    found: list[float] = []

    def note(at: Evaluated) -> None:
        found.append(at.loss.item())
        look(at)

    run(note)
    return found
