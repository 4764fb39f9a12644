"""Arithmetic with tensors of unit numbers: which occur together, and in one place for all."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# Every entry of a tensor has the number of a unit, of which two are special.
ZERO = 0  # a zero that stays one, whatever is done to units
FIXED = 1  # nothing may be done
FIRST = 2  # the first that is a unit


def spread(*tensors: Tensor) -> list[Tensor]:
    """Give tensors their common shape."""
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))  # type: ignore[no-untyped-call]
    return [tensor.expand(shape) for tensor in tensors]


def distinct(units: Tensor) -> Tensor:
    """Return the numbers of all units that occur, each once."""
    found, _ = numbered(units, places=False)
    return found[found >= FIRST]


def numbered(numbers: Tensor, *, places: bool = True) -> tuple[Tensor, Tensor]:
    """Return the different numbers in order, and the place of each entry's among them.

    As ``torch.unique``, but what is small is looked up in a table: images have millions of entries.
    """
    for axis, step in enumerate(numbers.stride()):
        # An axis along which a tensor was expanded says nothing.
        numbers = numbers if step or places or not numbers.numel() else numbers.narrow(axis, 0, 1)
    count = int(numbers.max()) + 1 if numbers.numel() else 0
    if count > 4 * numbers.numel() + 1000:
        found: tuple[Tensor, Tensor] = torch.unique(numbers, return_inverse=True)
        return found
    seen = torch.zeros(count, dtype=torch.bool, device="cpu")
    seen[numbers.reshape(-1)] = True
    values = seen.nonzero().flatten()
    return values, (seen.cumsum(0) - 1)[numbers] if places else values


def together(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the distinct rows of numbers that meet in one entry, and which row each entry has."""
    whole = spread(*tensors)
    shape = whole[0].shape
    codes = torch.zeros(shape, dtype=torch.int64, device="cpu").flatten()
    columns: list[Tensor] = []
    for tensor in whole:
        values, inside = numbered(tensor.reshape(-1))
        codes, inverse = numbered(codes * len(values) + inside)
        columns = [column[codes // len(values)] for column in columns]
        columns.append(values[codes % len(values)])
        codes = inverse
    return torch.stack(columns, 1), codes.view(shape)


def crossing(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return entries that say as much as all, for a sum of terms.

    Where each term varies along one axis alone, f(i) + g(j) = 0 for all i and j follows from the
    entries with i = 0 or j = 0.
    """
    whole = spread(*tensors)
    separate = all(sum(size > 1 for size in tensor.shape) <= 1 for tensor in tensors)
    if not separate or any(bool((tensor == ZERO).any()) for tensor in tensors):
        return list(whole)
    found: list[list[Tensor]] = [[] for _ in whole]
    for axis in range(max(whole[0].ndim, 1)):
        for parts, tensor in zip(found, whole, strict=True):
            line = tensor
            for other in reversed(range(tensor.ndim)):
                line = line if other == axis else line.select(other, 0)
            parts.append(line.reshape(-1))
    return [torch.cat(parts) for parts in found]


def shared(units: Tensor, axes: Sequence[int]) -> Tensor:
    """Return one number for all entries along axes, which stay with size one.

    Where they differ, the caller ties them; zeros go along with any.
    """
    return units.amax(tuple(axes), keepdim=True) if axes else units


def differing(units: Tensor, common: Tensor) -> Iterator[tuple[int, int]]:
    """Yield each pair of different numbers that meet, zeros left out."""
    apart = (units != common) & (units != ZERO) & (common != ZERO)
    if bool(apart.any()):
        one, other = spread(units, common)
        pairs, _ = together([one[apart], other[apart]])
        yield from ((int(a), int(b)) for a, b in pairs.tolist())
