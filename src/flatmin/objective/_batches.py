"""Inputs of any arrangement: to a device, into pieces, together again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from flatmin.objective._structure import map_tensors

Inputs = Tensor | PackedSequence | Sequence[Any] | Mapping[str, Any]
"""What a model is called with: one tensor, positional arguments, or keyword arguments."""

Examples = tuple[Inputs, Tensor]
"""A batch: inputs and targets."""

# Arguments that can be compared: equal ones serve examples of two batches.
_FLAGS = (bool, int, float, str, type(None))


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give positional and keyword arguments for the model."""
    if isinstance(inputs, Tensor | PackedSequence):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return tuple(inputs), {}


def apply(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """Apply a function tensor by tensor; None and flags stay."""
    mapped: Inputs = map_tensors(function, inputs)
    return mapped


def group(batches: Iterable[Examples], size: int) -> Iterator[list[Examples]]:
    """Cut the same examples, in the same order, into groups of ``size``; the last may be less.

    A group is one batch where its parts can be joined, and several where their shapes differ.
    """
    pending: list[Examples] = []
    waiting = 0
    for inputs, targets in batches:
        start = 0
        while start < len(targets):
            stop = min(len(targets), start + size - waiting)
            pending.append(rows(inputs, targets, slice(start, stop)))
            waiting += stop - start
            start = stop
            if waiting == size:
                yield _joined(pending)
                pending, waiting = [], 0
    if pending:
        yield _joined(pending)


def regroup(batches: Iterable[Examples], size: int) -> Iterator[Examples]:
    """Cut the same examples, in the same order, into batches of at most ``size``."""
    for pieces in group(batches, size):
        yield from pieces


def rows(inputs: Inputs, targets: Tensor, window: slice) -> Examples:
    """Some examples of a batch."""
    count = len(targets)
    if window.indices(count) == (0, count, 1):
        return inputs, targets
    cut: Inputs = _rows(inputs, count, window)
    return cut, targets[window]


def _rows(value: Any, count: int, window: slice) -> Any:
    # A packed sequence has its steps along the first dimension, not its examples.
    if isinstance(value, PackedSequence):
        return pack_sequence(unpack_sequence(value)[window], enforce_sorted=False)
    if isinstance(value, tuple | list):
        parts = [_rows(part, count, window) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return map_tensors(lambda t: _rows_of_tensor(t, count, window), value)


def _rows_of_tensor(t: Tensor, count: int, window: slice) -> Tensor:
    if t.ndim == 0:
        return t
    if len(t) != count:
        raise ValueError(
            "the first dimension of every input must be the example where a batch is cut, got "
            f"shape {tuple(t.shape)} for {count} targets; move it there, or give batches of the "
            "size that is wanted."
        )
    return t[window]


def _joined(pieces: list[Examples]) -> list[Examples]:
    """Neighbours that are alike as one batch."""
    runs = [[pieces[0]]]
    for piece in pieces[1:]:
        if _alike(runs[-1][-1], piece):
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return [run[0] if len(run) == 1 else _cat(run) for run in runs]


def _alike(first: Any, second: Any) -> bool:
    """Whether two arrangements can be joined along their first dimension."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.ndim == 0 or second.ndim == 0:
            return first is second
        return (first.shape[1:], first.dtype, first.device) == (
            second.shape[1:],
            second.dtype,
            second.device,
        )
    if type(first) is not type(second) or isinstance(first, PackedSequence):
        return False
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(_alike(first[k], second[k]) for k in first)
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(map(_alike, first, second))
    return first is second or (isinstance(first, _FLAGS) and bool(first == second))


def _cat(run: list[Any]) -> Any:
    first = run[0]
    if isinstance(first, Tensor):
        return torch.cat(run) if first.ndim else first
    if isinstance(first, Mapping):
        return {key: _cat([part[key] for part in run]) for key in first}
    if isinstance(first, tuple | list):
        parts = [_cat(list(column)) for column in zip(*run, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return first
