"""Memory at hand for a walk: what nobody looks at any more is given out again.

What is freed on a CPU goes back to the system, and fresh pages are dear: a measure that makes its
trial points anew in each step can spend more on finding and clearing them than on arithmetic.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

# Of storage that nobody else looks at: the memory itself, and the handle for counting.
_OWN_USES = 2

# Tensors of one room begin at multiples of so many numbers: 64 bytes, as in memory of their own.
_ALIGNED = 64

# Smaller ones lie in what malloc keeps, and to look after them takes longer than to make them.
_LARGE = 1 << 14

_Room = dict[tuple[int, torch.dtype], list[Tensor]]
"""Stretches of memory by size and type."""


class _Here(threading.local):
    """The room of the walk that this thread is on."""

    room: _Room | None = None


_here = _Here()


@contextmanager
def walking() -> Iterator[None]:
    """Keep in this thread, until the end of the block, what is freed in it.

    Only what is asked for here; nothing is kept afterwards, nor anywhere but on a CPU.
    """
    outer = _here.room
    _here.room = {} if outer is None else outer
    try:
        yield
    finally:
        _here.room = outer


def is_seen(t: Tensor) -> bool:
    """Whether anybody else looks at the memory of a tensor, be it by another name of its storage.

    The caller must have no name for the storage either.
    """
    storage = t.untyped_storage()
    named = sys.getrefcount(storage) > _unheld
    return named or torch._C._storage_Use_Count(storage._cdata) > _OWN_USES


def is_ordinary(t: Tensor) -> bool:
    """Whether a tensor is of no subclass, whose copies only its own operations make."""
    return type(t) in (Tensor, Parameter)


def like(tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """Tensors of these shapes, to be written to: in memory that is there, or new."""
    room = _room_for(tensors)
    kinds = {dtype or t.dtype for t in tensors}
    if room is not None and len(kinds) == 1 and all(map(_is_plain, tensors)):
        return _laid(room, [t.shape for t in tensors], *kinds)
    return [torch.empty_like(t, dtype=dtype, requires_grad=False) for t in tensors]


def row(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One row of so many numbers, likewise."""
    if _here.room is not None and device.type == "cpu":
        return _laid(_here.room, [torch.Size([count])], dtype)[0]
    return torch.empty(count, dtype=dtype, device=device)


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies, apart from any graph, likewise."""
    if _room_for(tensors) is None:
        return [t.detach().clone() for t in tensors]
    with torch.no_grad():
        return [new.copy_(t) for new, t in zip(like(tensors), tensors, strict=True)]


def each(operation: Callable[..., Tensor], *columns: Sequence[Any]) -> list[Tensor] | None:
    """What an operation makes of the rows of some columns, the first one of tensors.

    Args:
        operation: One number by number, with ``out``.
        columns: Its arguments; floating tensors all of one type, or numbers.

    Returns:
        The results, in memory that is there; None where there is no room for them.
    """
    rows = list(zip(*columns, strict=True))
    if _room_for(columns[0]) is None or not all(map(_fits, rows)):
        return None
    out = like(columns[0])
    for row, new in zip(rows, out, strict=True):
        operation(*row, out=new)
    return out


def _room_for(tensors: Sequence[Tensor]) -> _Room | None:
    """The room, if there is one, and if one by one tensors of this size come as fresh pages."""
    if not tensors or sum(t.numel() for t in tensors) < _LARGE * len(tensors):
        return None
    return _here.room


def _fits(row: Sequence[Any]) -> bool:
    """Whether the result has shape and type of the first, and no graph."""
    first, *others = row
    kind = first.shape, first.dtype, first.device
    return (
        _is_plain(first)
        and first.is_floating_point()
        and not any(isinstance(t, Tensor) and t.requires_grad for t in row)
        and all(
            (t.shape, t.dtype, t.device) == kind
            or (t.ndim == 0 < first.ndim and t.is_floating_point())
            if isinstance(t, Tensor)
            else isinstance(t, float)
            for t in others
        )
    )


def _is_plain(t: Tensor) -> bool:
    return t.is_cpu and is_ordinary(t) and t.layout == torch.strided and t.is_contiguous()


def _laid(
    room: _Room,
    shapes: Sequence[torch.Size],
    dtype: torch.dtype,
) -> list[Tensor]:
    """Tensors one behind the other, each with a count of changes of its own."""
    sizes = [-(-shape.numel() // _ALIGNED) * _ALIGNED for shape in shapes]
    known = room.setdefault((sum(sizes), dtype), [])
    free = next((flat for flat in known if not is_seen(flat)), None)
    with torch.inference_mode(False):  # or nobody else could write there
        if free is None:
            free = torch.empty(sum(sizes), dtype=dtype, device="cpu")
            known.append(free)
        storage, place, laid = free.untyped_storage(), 0, []
        for shape, size in zip(shapes, sizes, strict=True):
            laid.append(free.new_empty(0).set_(storage, place, shape))  # type: ignore[call-overload]
            place += size
    return laid


def _count() -> int:
    """Names of a storage that is only counted."""
    t = torch.empty(0, device="cpu")
    storage = t.untyped_storage()
    return sys.getrefcount(storage)


_unheld = _count()
