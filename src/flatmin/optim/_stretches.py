"""The same parts of several lists of tensors, walked together while they are in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# Numbers at a time on a CPU: few enough for the cache, enough to keep two threads busy.
STRETCH = 1 << 18


def stretches(*lists: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], ...]]:
    """Cut lists of tensors on a CPU, and leave others whole.

    Args:
        lists: As many tensors in each, of the same shapes.

    Yields:
        Of each list a part, in the same memory: many small tensors or a stretch of a large one.
    """
    portion: list[tuple[Tensor, ...]] = []
    numbers = 0
    for tensors in zip(*lists, strict=True):
        size = tensors[0].numel()
        if size > STRETCH and tensors[0].is_cpu and are_flat(*tensors):
            for parts in zip(*(torch.split(flat(t), STRETCH) for t in tensors), strict=True):
                yield tuple([part] for part in parts)
            continue
        if portion and numbers + size > STRETCH and tensors[0].is_cpu:
            yield _columns(portion)
            portion, numbers = [], 0
        portion.append(tensors)
        numbers += size
    if portion:
        yield _columns(portion)


def are_flat(*tensors: Tensor) -> bool:
    """Whether all fill a stretch of memory in the same order, without gaps or overlaps."""
    first = tensors[0]
    if any(t.layout != torch.strided or t.stride() != first.stride() for t in tensors):
        return False
    expected = 1
    for stride, size in sorted(zip(first.stride(), first.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def flat(t: Tensor) -> Tensor:
    """The same memory as one row, of a tensor that ``are_flat`` has found good."""
    return t.as_strided((t.numel(),), (1,))


def _columns(portion: list[tuple[Tensor, ...]]) -> tuple[list[Tensor], ...]:
    return tuple(list(column) for column in zip(*portion, strict=True))
