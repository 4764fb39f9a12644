"""Inputs of any arrangement: to a device, into pieces, together again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
"""What a model is called with: one tensor, positional arguments, or keyword arguments."""

Examples = tuple[Inputs, Tensor]
"""A batch: inputs and targets."""


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give positional and keyword arguments for the model."""
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return tuple(inputs), {}


def apply(function: Callable[..., Tensor], inputs: Inputs, *others: Any) -> Inputs:
    """Apply a function tensor by tensor; all arguments are arranged alike."""
    if isinstance(inputs, Tensor):
        return function(inputs, *others)
    if isinstance(inputs, Mapping):
        return {name: function(t, *(other[name] for other in others)) for name, t in inputs.items()}
    return tuple(function(*ts) for ts in zip(inputs, *others, strict=True))


def regroup(batches: Iterable[Examples], size: int) -> Iterator[Examples]:
    """Cut the same examples, in the same order, into batches of ``size``; the last may be less."""
    pending: list[Examples] = []
    waiting = 0
    for inputs, targets in batches:
        start = 0
        while start < len(targets):
            stop = min(len(targets), start + size - waiting)
            window = slice(start, stop)
            pending.append((apply(lambda t: t[window], inputs), targets[window]))  # noqa: B023
            waiting += stop - start
            start = stop
            if waiting == size:
                yield _join(pending)
                pending, waiting = [], 0
    if pending:
        yield _join(pending)


def _join(pieces: list[Examples]) -> Examples:
    inputs = apply(lambda *ts: torch.cat(ts), *[inputs for inputs, _ in pieces])
    return inputs, torch.cat([targets for _, targets in pieces])
