"""The arithmetic of a ball on tensors that are scaled alike, written into memory that is there.

Number by number it is that of ``Ball``, with the same roundings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin._room import is_ordinary
from flatmin.ball import Ball
from flatmin.optim._workspace import Workspace

_HALF = (torch.float16, torch.bfloat16)


def suits(weight: Tensor, grad: Tensor) -> bool:
    """Whether a tensor, with its gradient, is an ordinary one on a CPU."""
    return (
        weight.is_cpu
        and weight.dtype == grad.dtype
        and weight.is_floating_point()
        and is_ordinary(weight)
        and is_ordinary(grad)
    )


def is_bare(ball: Ball, name: str) -> bool:
    """Whether the direction is the gradient itself: T is one, and p is 2."""
    return ball.p == 2.0 and _is_one(ball, name)


def _is_one(ball: Ball, name: str) -> bool:
    is_one: Callable[[str], bool] | None = getattr(ball.scale, "is_one", None)
    return is_one is not None and is_one(name)


def wide(dtype: torch.dtype) -> torch.dtype:
    """A precision in which norms neither overflow nor vanish."""
    return torch.float32 if dtype in _HALF else dtype


@dataclass(frozen=True, slots=True)
class InPlace:
    """What a ball needs of tensors of one type, which its scale treats alike.

    Attributes:
        ball: The ball.
        name: Of one of the tensors.
        workspace: Where to write.
    """

    ball: Ball
    name: str
    workspace: Workspace

    def support(self, weights: Sequence[Tensor], grads: Sequence[Tensor]) -> Tensor:
        """What ``Ball.plain_support`` gives."""
        order = self.ball.dual_order
        _, v = self._stretched(weights, grads)
        if order in (1.0, 2.0, math.inf):
            norms = list(torch._foreach_norm(v, order))
        else:
            norms = [self._norm(t, order) for t in v]
        return tree.combine(norms, order) * self.ball.rho

    def direction(
        self, weights: Sequence[Tensor], grads: Sequence[Tensor], support: Tensor
    ) -> list[Tensor]:
        """What ``Ball.direction`` gives: in scratch, or the gradients themselves."""
        p = self.ball.p
        factors, v = self._stretched(weights, grads)
        if p != 2.0:
            v = self.scratch(v)
        if p == math.inf:
            torch._foreach_sign_(v)
        elif p == 1.0:
            for t in v:
                peaks = self._peaks(t, support)
                t.sgn_().mul_(peaks)
        elif p != 2.0:
            # Relative to the norm: a large power of a small number would vanish.
            torch._foreach_div_(v, tree.or_one(support / self.ball.rho))
            for t in v:
                size = self._sizes(t).pow_(self.ball.dual_order - 1.0)
                t.sgn_().mul_(size)
        if factors is not None:
            torch._foreach_mul_(v, factors)
        return v

    def ties(self, weights: Sequence[Tensor], grads: Sequence[Tensor], support: Tensor) -> Tensor:
        """What ``Ball.ties`` gives."""
        _, v = self._stretched(weights, grads)
        return torch.stack([self._peaks(t, support).sum() for t in v]).sum()

    def _stretched(
        self, weights: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> tuple[list[Tensor] | None, list[Tensor]]:
        """The diagonal of T, unless it is one, and T g."""
        factors = self._factors(weights)
        if factors is None:
            return None, self.scratch(grads) if grads[0].dtype in _HALF else list(grads)
        v = self.workspace.room("direction", grads, wide(grads[0].dtype))
        for g, factor, out in zip(grads, factors, v, strict=True):
            torch.mul(g, factor, out=out)
        return factors, v

    def _factors(self, weights: Sequence[Tensor]) -> list[Tensor] | None:
        """The diagonal of T, unless it is one."""
        scale: Any = self.ball.scale
        if _is_one(self.ball, self.name):
            return None
        if not hasattr(scale, "write"):
            found = [scale({self.name: w.to(wide(w.dtype))}).get(self.name) for w in weights]
            return None if any(f is None for f in found) else found
        factors = self.workspace.room("factors", weights, wide(weights[0].dtype))
        scale.write(weights, factors)
        return factors

    def scratch(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """Copies to write into, unless they are already."""
        v = self.workspace.room("direction", grads, wide(grads[0].dtype))
        if v[0].data_ptr() != grads[0].data_ptr():
            torch._foreach_copy_(v, list(grads))
        return v

    def _sizes(self, v: Tensor) -> Tensor:
        (room,) = self.workspace.room("sizes", [v], v.dtype)
        return torch.abs(v, out=room)

    def _peaks(self, v: Tensor, support: Tensor) -> Tensor:
        """Ones where the maximum is attained, zero elsewhere."""
        largest = support / self.ball.rho
        return self._sizes(v).ge_(largest * (1.0 - 4.0 * torch.finfo(v.dtype).eps))

    def _norm(self, v: Tensor, order: float) -> Tensor:
        """Relative to the largest number, so that no power vanishes or overflows."""
        size = self._sizes(v)
        largest = size.amax()
        size.div_(tree.or_one(largest))
        norm: Tensor = torch.linalg.vector_norm(size, order)
        usable = (largest > 0) & largest.isfinite()
        return torch.where(usable, norm * largest, norm)
