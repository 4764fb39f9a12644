"""Memory that a wrapper keeps from step to step on a CPU."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import partial

import torch
from torch import Tensor

from flatmin._room import is_ordinary, is_seen

_Key = tuple[Hashable, torch.dtype]

_Kind = tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device]
"""What memory must have in common for a tensor of one to lie in the other."""


class Workspace:
    """Room for old weights and scratch, which is the same memory in every step.

    What is freed on a CPU goes back to the system, and fresh pages are dear: a step that allocates
    as much as it copies can take many times as long. So the room is kept, as large as the last
    climb needed it. Accelerators keep what is freed by themselves; there nothing is kept.

    Old weights are copied here; or the room is lent to a parameter, which lies in it while it is
    shifted, and nothing is copied. What somebody has begun to look at meanwhile is not lent again.
    """

    def __init__(self) -> None:
        self._flat: dict[_Key, Tensor] = {}
        self._views: dict[_Key, dict[Hashable, list[Tensor]]] = {}
        self._used: set[_Key] = set()
        self._copies = 0
        self._lent: dict[_Kind, list[Tensor]] = {}
        self._back: dict[_Kind, list[Tensor]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        lists = self._flat.values(), *self._lent.values(), *self._back.values()
        return sum(t.numel() * t.element_size() for kept in lists for t in kept)

    def begin(self) -> None:
        """Begin a climb: what the last step had no use for is given back."""
        for key in self._flat.keys() - self._used if self._used else ():
            del self._flat[key], self._views[key]
        self._used.clear()
        self._copies = 0
        self._lent, self._back = self._back, {}

    def clear(self) -> None:
        """Give everything back."""
        for kept in (self._flat, self._views, self._lent, self._back):
            kept.clear()

    def copies(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Copies, which nothing else that is asked for in this climb overwrites."""
        if not all(map(is_ordinary, tensors)):
            return clones(tensors)
        room = self.another(tensors)
        torch._foreach_copy_(room, list(tensors))
        return room

    def another(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Room for tensors of these shapes, which nothing else in this climb shares."""
        self._copies += 1
        return self.room(self._copies, tensors, tensors[0].dtype)

    def lend(self, like: Tensor) -> Tensor:
        """Memory of its own for a parameter on a CPU to lie in; nobody else refers to it here."""
        at_hand = self._lent.get(_kind(like), [])
        for i, t in enumerate(at_hand):
            if not is_shared(t):
                return at_hand.pop(i)
        with torch.inference_mode(False):  # or nobody else could write there
            make = partial(torch.empty_strided, like.shape, like.stride(), dtype=like.dtype)
            make(device="cpu")  # freed at once, after which malloc lays its like on the heap
            return make(device="cpu")

    def take_back(self, t: Tensor) -> None:
        """What was lent, when nobody lies in it any more; it is lent again in the next climb."""
        if not t.is_inference():
            self._back.setdefault(_kind(t), []).append(t)

    def trade(self, t: Tensor) -> None:
        """Keep what a step has done with instead of its like that was lent, if it lies higher.

        What is freed at the end of the heap goes back to the system, and the next gradient has to
        find it anew, page by page; what is freed below something that is kept stays at hand.
        """
        at_hand = self._back.get(_kind(t), [])
        for i, kept in enumerate(at_hand):
            if kept.data_ptr() < t.data_ptr():
                at_hand[i] = t.detach()  # who has this name for it counts as one who looks
                return

    def room(self, use: Hashable, tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """Room for tensors of these shapes, one behind the other; each use has its own.

        Args:
            use: What for. The next one of the same use and type gets the same memory; that of a
                number is as large as needed, that of a word as large as ever needed.
            tensors: Whose shapes and device count.
            dtype: Of the room.
        """
        if not tensors[0].is_cpu:
            return [torch.empty(t.shape, dtype=dtype, device=t.device) for t in tensors]
        key = use, dtype
        self._used.add(key)
        shapes = tuple([t.shape for t in tensors])
        known = self._views.get(key, {}).get(shapes)
        return self._made(key, shapes) if known is None else known

    def _made(self, key: _Key, shapes: tuple[torch.Size, ...]) -> list[Tensor]:
        sizes = [shape.numel() for shape in shapes]
        flat = self._flat.get(key)
        with torch.inference_mode(False):  # or nobody else could write there
            least, most = sum(sizes), math.inf if isinstance(key[0], str) else sum(sizes)
            if flat is None or not least <= flat.numel() <= most:
                flat = torch.empty(sum(sizes), dtype=key[1], device="cpu")
                self._flat[key], self._views[key] = flat, {}
            parts = torch.split(flat[: sum(sizes)], sizes)
            views = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        self._views[key][shapes] = views
        return views


def _kind(t: Tensor) -> _Kind:
    return t.shape, t.stride(), t.dtype, t.device


def is_shared(t: Tensor) -> bool:
    """Whether the memory of a tensor is somebody else's too, such as a bucket of DDP."""
    return is_seen(t) or t.untyped_storage().nbytes() != t.numel() * t.element_size()


def clones(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies of all, in one operation where torch has it."""
    if hasattr(torch, "_foreach_clone"):  # torch 2.8 and newer
        return list(torch._foreach_clone(list(tensors)))
    return [t.clone() for t in tensors]


def joined(views: Sequence[Tensor]) -> Tensor:
    """Room for tensors of one shape as one tensor, with a dimension in front."""
    first = views[0]
    shape = (len(views), *first.shape)
    return first.as_strided(shape, (first.numel(), *first.stride()))
