"""The same parts of several lists of tensors, walked together while they are in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")

# Numbers at a time on a CPU: few enough for the cache, enough to keep two threads busy.
STRETCH = 1 << 18

# The same on a walk without scratch, where an operation or two read each number: what little has to
# stay in the cache may be in its last level, and threads that are started more seldom wait less.
LONG = 1 << 20


def stretches(*lists: Iterable[Tensor], most: int = STRETCH) -> list[tuple[list[Tensor], ...]]:
    """Cut lists of tensors on a CPU, and leave others whole.

    All are cut before the walk begins: between two large operations Python itself runs slowly, for
    what it needs has left the cache.

    Args:
        lists: As many tensors in each, of the same shapes.
        most: How many numbers at a time.

    Returns:
        Of each list a part, in the same memory: many small tensors or a stretch of a large one.
    """
    cut: list[tuple[list[Tensor], ...]] = []
    whole: list[tuple[Tensor, ...]] = []
    for tensors in zip(*lists, strict=True):
        if tensors[0].numel() > STRETCH and tensors[0].is_cpu and are_flat(*tensors):
            rows = [torch.split(flat(t), most) for t in tensors]
            cut += [tuple([[part] for part in parts]) for parts in zip(*rows, strict=True)]
        else:
            whole.append(tensors)
    for portion in portions(whole, lambda tensors: tensors[0]):
        cut.append(tuple([list(column) for column in zip(*portion, strict=True)]))
    return cut


def is_row(t: Tensor) -> bool:
    """Whether a part is a stretch of a large tensor, or like one: dense, of one dimension."""
    return t.ndim == 1 and t.layout == torch.strided


def portions(
    items: Iterable[Item], tensor_of: Callable[[Item], Tensor], most: int = STRETCH
) -> Iterator[list[Item]]:
    """Take as many at a time as have so many numbers, one at least; elsewhere than on a CPU, all.

    Args:
        items: What to take from.
        tensor_of: The tensor whose numbers count.
        most: How many numbers.
    """
    portion: list[Item] = []
    numbers = 0
    for item in items:
        tensor = tensor_of(item)
        if portion and numbers + tensor.numel() > most and tensor.is_cpu:
            yield portion
            portion, numbers = [], 0
        portion.append(item)
        numbers += tensor.numel()
    if portion:
        yield portion


def are_flat(*tensors: Tensor) -> bool:
    """Whether all fill a stretch of memory in the same order, without gaps or overlaps."""
    if all(t.layout == torch.strided and t.is_contiguous() for t in tensors):
        return True
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
