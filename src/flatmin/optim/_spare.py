"""Gradients whose memory the shifted weights may take when the direction is known."""

from __future__ import annotations

import functools
import sys

import torch
from torch import Tensor

from flatmin._room import is_ordinary
from flatmin.optim import _sharded
from flatmin.optim._workspace import is_shared


def is_held(param: Tensor) -> bool:
    """Whether anybody but the parameter itself refers to its gradient: by name, or in a graph."""
    held, used = _unheld()
    return sys.getrefcount(param.grad) > held or _uses(param.grad) > used


@functools.cache
def _unheld() -> tuple[int, int]:
    """What is counted of a gradient that nobody holds."""
    param = torch.nn.Parameter(torch.zeros(1))
    param.grad = torch.zeros(1)
    return sys.getrefcount(param.grad), _uses(param.grad)


def _uses(grad: Tensor | None) -> int:
    return grad._use_count() if grad is not None and hasattr(grad, "_use_count") else 0


def is_own(param: Tensor) -> bool:
    """Whether nobody else looks at a gradient, so that it may be written to when it is spent."""
    # No name for the gradient here, which would count as one more who looks.
    if param.grad is None or is_held(param):
        return False
    return _is_ordinary(_sharded.local(param.grad))


def is_spare(grad: Tensor, weight: Tensor) -> bool:
    """Whether an unheld gradient has memory of its own that the weight may use for a while.

    On a CPU the weight moves there, so nobody else may look at its own memory either.
    """
    return (
        type(grad) is Tensor
        and grad.dtype == weight.dtype
        and _is_ordinary(grad)
        and (not weight.is_cpu or (weight.stride() == grad.stride() and can_move(weight)))
    )


def can_move(weight: Tensor) -> bool:
    """Whether nobody would notice that a weight lies elsewhere, who does not ask for the address.

    Memory that torch has not allocated (numpy's, a file's, that of several processes) counts as
    looked at.
    """
    return (
        is_ordinary(weight)
        and weight.layout == torch.strided
        and weight.is_leaf
        and not weight.is_inference()
        and not is_shared(weight)
        and weight.untyped_storage().resizable()
        and not weight.untyped_storage().is_shared()
    )


def _is_ordinary(grad: Tensor) -> bool:
    return (
        grad.layout == torch.strided
        and not grad.requires_grad
        and not grad.is_inference()
        and not is_shared(grad)
    )
