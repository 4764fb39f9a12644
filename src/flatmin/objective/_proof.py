"""Whether a loss over data is one function of the parameters: evaluated, and evaluated again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from flatmin.objective import _checks as checks
from flatmin.objective._conditions import devices_of
from flatmin.objective._evaluation import Evaluated
from flatmin.objective._mean import MeanCheck
from flatmin.objective._processes import Processes
from flatmin.objective._structure import tensors
from flatmin.objective._weights import Weight

Pass = Callable[[Callable[[Evaluated], None]], None]
"""A pass over the data at the model's own parameters."""


class Proof(NamedTuple):
    """What is known of a loss that is not refused.

    Attributes:
        mixes: A sentence, where the one batch that there is must not be cut.
        dtype: The coarsest floating type among outputs and losses; None without data.
    """

    mixes: str | None
    dtype: torch.dtype | None


def prove(model: nn.Module, run: Pass, processes: Processes, weight: Weight) -> Proof:
    """Refuse a loss that is no mean, no function, or another one where gradients are wanted.

    Raises:
        ValueError: If the loss is refused, in all processes.
    """
    mean, bypassed, dtypes = MeanCheck(model, weight), list[str](), set[torch.dtype]()

    def look(at: Evaluated) -> None:
        mean.look(at)
        found = at.dtype, *(t.dtype for t in tensors(at.outputs))
        dtypes.update(dtype for dtype in found if dtype.is_floating_point)

    with pairs_refused():
        first = _losses(run, look)
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
    if several:
        mean.warn(stacklevel=4)  # the line that makes the loss
    coarsest = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps, default=None)
    return Proof(mean.mixes, coarsest)


@contextmanager
def pairs_refused() -> Iterator[None]:
    """Refuse a loss of all pairs of examples, about which torch only warns.

    Raises:
        ValueError: If outputs and targets are of different shapes, and broadcast.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Using a target size", UserWarning)
        try:
            yield
        except UserWarning as warning:
            raise ValueError(
                "outputs and targets must have one shape, or the loss is one of all pairs of "
                f"examples; squeeze one or unsqueeze the other ({str(warning).partition('. ')[0]})."
            ) from warning


def _losses(run: Pass, look: Callable[[Evaluated], None] = lambda at: None) -> list[float]:
    found: list[float] = []

    def note(at: Evaluated) -> None:
        found.append(at.loss.item())
        look(at)

    run(note)
    return found
