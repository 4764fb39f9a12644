"""Copies of tensors, and the way back: a few operations, however many tensors there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._utils import _unflatten_dense_tensors

_unflatten: Callable[[Tensor, list[Tensor]], Sequence[Tensor]] = _unflatten_dense_tensors
_PLAIN = (Tensor, torch.nn.Parameter)
# Others, such as floats of eight bits, are not joined on every device.
_TYPES = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
_TYPES |= {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_TYPES |= {torch.complex64, torch.complex128}


class Copies:
    """Tensors with what they hold now.

    Those of a kind lie one behind the other: a network has two or three buffers in each of its many
    normalization layers, and an operation on each of them takes longer than a small layer does.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """Copy what ``tensors`` hold."""
        self._kinds: list[tuple[list[Tensor], list[Tensor]]] = []
        self._others: list[tuple[Tensor, Tensor]] = []
        kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        with torch.no_grad():
            for t in tensors:
                if _is_plain(t):
                    kinds.setdefault((t.device, t.dtype), []).append(t)
                else:
                    self._others.append((t, t.detach().clone()))
            for kept in kinds.values():
                flat = torch.cat([t.detach().view(-1) for t in kept])
                self._kinds.append((kept, list(_unflatten(flat, kept))))

    def put_back(self) -> None:
        """Let the tensors hold again what they held."""
        with torch.no_grad():
            for tensors, values in self._kinds:
                if all(map(_fits, tensors, values)):
                    # By ``data``: a graph of this pass may hold a buffer, which is not the worse
                    # for it.
                    torch._foreach_copy_([t.data for t in tensors], values)
                else:
                    for tensor, value in zip(tensors, values, strict=True):
                        _write(tensor, value)
            for tensor, value in self._others:
                _write(tensor, value)


def _is_plain(t: Tensor) -> bool:
    """Whether a tensor can be laid behind others of its kind, and be written as they are."""
    return (
        type(t) in _PLAIN
        and t.dtype in _TYPES
        and t.layout is torch.strided
        and t.is_contiguous()  # and so not expanded
        and not t.is_inference()
    )


def _fits(tensor: Tensor, value: Tensor) -> bool:
    return (
        tensor.shape == value.shape
        and tensor.dtype == value.dtype
        and tensor.device == value.device
        and tensor.is_contiguous()
        and not tensor.is_inference()
    )


def _write(tensor: Tensor, value: Tensor) -> None:
    if tensor.shape != value.shape or tensor.dtype != value.dtype:
        tensor.data = value.clone()  # memory of its own, beside which nothing else lies
    elif not (tensor.is_inference() or _is_expanded(tensor)):
        tensor.data.copy_(value)
    elif not torch.equal(tensor, value):  # expanded, or made in inference mode, yet written
        with torch.inference_mode(tensor.is_inference()):
            tensor.copy_(value)


def _is_expanded(tensor: Tensor) -> bool:
    """Whether several numbers lie in one place, so that torch refuses to write them."""
    return tensor.layout is torch.strided and any(
        size > 1 and not stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
