"""Batches as a stranger's function returns them: pairs whose examples belong together."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from flatmin.data import Batches, DataSet
from flatmin.objective._batches import Examples, apply, arguments, regroup

_AS_TENSORS = "; convert them by torch.as_tensor"


def own_batches(taken: Any, examples: int, batch_size: int) -> list[Examples]:
    """Take the first examples, in the order in which they come.

    Args:
        taken: Batches, pairs of inputs and targets; one such pair; a data set of flatmin; or one
            of torch, whose examples are put together as a ``DataLoader`` does.
        examples: How many, at most.
        batch_size: In each batch.

    Returns:
        The batches.

    Raises:
        TypeError: If something else comes.
        ValueError: If inputs and targets differ in length.
    """
    kept: list[Examples] = []
    room = examples
    for number, batch in enumerate(_batches(taken, batch_size)):
        inputs, targets = _pair(batch, number)
        kept.append((apply(lambda t: t[:room], inputs), targets[:room]))  # noqa: B023
        room -= len(kept[-1][1])
        if room <= 0:
            break
    return list(regroup(kept, batch_size))


def _batches(taken: Any, batch_size: int) -> Iterable[Any]:
    if isinstance(taken, DataSet):
        return Batches(taken, min(batch_size, len(taken)), shuffle=False)
    if isinstance(taken, Dataset):
        return DataLoader(taken, batch_size=batch_size)
    if isinstance(taken, DataLoader):
        # Persistent workers serve one iterator, in which a training may be in the middle.
        fresh: DataLoader[Any] = copy.copy(taken)
        fresh._iterator = None
        return fresh
    # No batch is a tensor, so this is no list of two of them.
    if isinstance(taken, tuple | list) and len(taken) == 2 and isinstance(taken[1], Tensor):
        return [taken]
    if isinstance(taken, tuple | list) and any(isinstance(part, np.ndarray) for part in taken):
        raise TypeError(f"numpy's arrays are no tensors{_AS_TENSORS}")
    if isinstance(taken, Tensor | Mapping | str):
        raise TypeError(f"a {type(taken).__name__} is no sequence of pairs")
    iterable: Iterable[Any] = taken
    return iterable


def _pair(batch: Any, number: int) -> Examples:
    """Check that a batch is one, and that each of its inputs has its target."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        count = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        how = ""
        if isinstance(batch, Mapping):
            how = '; make one, such as ((b, b.pop("labels")) for b in loader)'
        elif len(count) and len(batch) > 2:
            how = "; make one, such as ((b[0], b[1]) for b in loader)"
        raise TypeError(f"batch {number} is a {type(batch).__name__}{count}, expected a pair{how}")
    inputs, targets = batch
    args, kwargs = arguments(inputs)
    tensors = [*args, *kwargs.values(), targets]
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            how = _AS_TENSORS if isinstance(tensor, np.ndarray) else ""
            kind = type(tensor).__name__
            raise TypeError(f"batch {number} holds a {kind}, expected tensors{how}")
        if not tensor.ndim:
            raise TypeError(f"batch {number} holds a single number, expected a row of examples")
    lengths = [len(tensor) for tensor in tensors]
    if len(set(lengths)) > 1:
        shown = " and ".join(map(str, lengths[:-1]))
        raise ValueError(
            f"batch {number} has {shown} inputs and {lengths[-1]} targets, expected one target for "
            "each input"
        )
    return inputs, targets
