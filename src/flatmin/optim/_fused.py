"""The climb of one large tensor, compiled: each number is read once and written once.

The compiled functions take flat tensors of any length and are shared by all optimizers whose balls
differ in no more than the radius. Compilation needs what ``torch.compile`` needs, a C++ compiler.
On CPUs only: on a GPU, calling a compiled function for each tensor takes longer than torch's own
operations on lists of tensors.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin.ball import Ball
from flatmin.optim._spare import is_spare

_numbers = itertools.count()

# Below this, calling a compiled function costs more than it saves.
_WORTH_IT = 1 << 17


def suits(ball: Ball, weight: Tensor, grad: Tensor) -> bool:
    """Whether to fuse: on a CPU, large, ordinary, and with a spare gradient."""
    return (
        weight.is_cpu
        and ball.p in (2.0, math.inf)
        and weight.numel() >= _WORTH_IT
        and weight.is_floating_point()
        and is_spare(grad, weight)
    )


def support(ball: Ball, weights: dict[str, Tensor], grads: dict[str, Tensor]) -> Tensor:
    """Support of the ball, as far as one flat tensor goes."""
    ((name, weight),), (grad,) = weights.items(), grads.values()
    norm, _ = _kernels(ball, name, weight)
    return norm(_alias(weight), _alias(grad)) * ball.rho


def climb(ball: Ball, weights: dict[str, Tensor], grads: dict[str, Tensor], length: float) -> None:
    """Write a flat weight, shifted by ``length`` times its direction, to where its gradient was.

    There the parameter can move.
    """
    ((name, weight),), (grad,) = weights.items(), grads.values()
    _, shift = _kernels(ball, name, weight)
    shift(_alias(weight), _alias(grad), torch.tensor(length, dtype=_wide(weight[:0]).dtype))


def _alias(t: Tensor) -> Tensor:
    """The same memory as a tensor of its own: views are compiled anew for each shape of base."""
    return t.new_empty(0).set_(t.untyped_storage(), t.storage_offset(), (t.numel(),), (1,))


_Kernels = tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], None]]
_made: dict[tuple[Hashable, ...], _Kernels] = {}


def _kernels(ball: Ball, name: str, weight: Tensor) -> _Kernels:
    """The two walks, compiled once for all parameters that the scale treats alike."""
    like = ball.scale.alike(name)  # type: ignore[attr-defined]  # only such are cut up
    key = (ball.p, ball.scale, like, weight.dtype)
    if key not in _made:
        _made[key] = _make(Ball(1.0, ball.p, ball.scale), name, weight.dtype)
    return _made[key]


def _make(ball: Ball, name: str, dtype: torch.dtype) -> _Kernels:
    """The two walks, compared with the plain ones before they are trusted."""
    order = ball.dual_order

    def norm(weight: Tensor, grad: Tensor) -> Tensor:
        v = ball.stretch({name: _wide(weight)}, {name: _wide(grad)})[name]
        # A sum in float64 costs nothing extra here: the memory is slower.
        if order == 1.0:
            return v.abs().sum(dtype=torch.float64)
        return v.square().sum(dtype=torch.float64).sqrt()

    def shift(weight: Tensor, grad: Tensor, length: Tensor) -> None:
        direction = ball.direction({name: _wide(weight)}, {name: _wide(grad)}, length)
        grad.copy_(tree.add({name: weight}, direction, alpha=length)[name])

    fast_norm, fast_shift = _compiled(norm), _compiled(shift)
    line = torch.linspace(-1.0, 1.0, 2 * _WORTH_IT)
    weight, grad = line.to(dtype), line.cos().to(dtype)
    length = torch.tensor(0.1)
    plain, fast = (weight.clone(), grad.clone()), (weight.clone(), grad.clone())
    shift(*plain, length)
    fast_shift(*fast, length)
    few = 16 * torch.finfo(dtype).eps
    close = functools.partial(torch.allclose, rtol=few, atol=few)
    if not (
        close(fast_norm(weight, grad).float(), norm(weight, grad).float())
        and close(fast[1], plain[1])
        and torch.equal(fast[0], weight)
    ):
        raise RuntimeError(
            "torch.compile has made a kernel that gives another result than the code it was made "
            f"from (torch {torch.__version__}, {dtype}); use fused=False."
        )
    return fast_norm, fast_shift


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # Recompilations are limited by code object, and each ball needs code of its own.
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_numbers)}")
    own = FunctionType(code, function.__globals__, code.co_name, None, function.__closure__)
    return torch.compile(own, dynamic=True, fullgraph=True)


def _wide(t: Tensor) -> Tensor:
    return t.to(torch.promote_types(t.dtype, torch.float32))
