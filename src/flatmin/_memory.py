"""Where tensors lie: which of them share memory."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

import torch
from torch import Tensor, nn


class Memory:
    """Where the parameters and buffers of a network lie."""

    def __init__(self, model: nn.Module) -> None:
        self._named = [*model.named_parameters(), *model.named_buffers()]
        self._objects = {id(tensor): name for name, tensor in self._named}
        self._places = sorted((*_extent(tensor), name) for name, tensor in self._named)
        self._ends = list(accumulate((end for _, end, _ in self._places), max))

    def names_of(self, tensor: Tensor) -> set[str]:
        """Name every parameter and buffer that shares memory with a tensor, or is it."""
        start, end = _extent(tensor)
        found = {self._objects[id(tensor)]} if id(tensor) in self._objects else set()
        # From the last that begins before the tensor ends, back to where all have ended.
        last = bisect_left(self._places, (end, 0, ""))
        while last and self._ends[last - 1] > start:
            last -= 1
            if self._places[last][1] > start:
                found.add(self._places[last][2])
        return found

    def shared(self) -> set[str]:
        """Name those that share memory with another, with an attribute, or within themselves."""
        found = set()
        for _, tensor in self._named:
            names = self.names_of(tensor)
            if len(names) > 1 or _repeats(tensor):
                found |= names
        return found


def meet(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have an entry in common; columns of one matrix lie between each other."""
    (start, end), (begin, stop) = _extent(a), _extent(b)
    return max(start, begin) < min(end, stop) and bool(torch.isin(_places(a), _places(b)).any())


def _extent(tensor: Tensor) -> tuple[int, int]:
    """First byte and the byte after the last; an empty range where there is no memory."""
    if tensor.layout is not torch.strided or not tensor.numel() or tensor.device.type == "meta":
        return 0, 0
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in pairs)
    start = tensor.data_ptr()
    return start, start + (last + 1) * tensor.element_size()


def _repeats(tensor: Tensor) -> bool:
    if tensor.layout is not torch.strided:
        return False
    return any(n > 1 and s == 0 for n, s in zip(tensor.shape, tensor.stride(), strict=True))


def _places(tensor: Tensor) -> Tensor:
    """The first byte of every entry."""
    found = torch.tensor(tensor.data_ptr())
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        found = found[..., None] + torch.arange(size) * (stride * tensor.element_size())
    return found
