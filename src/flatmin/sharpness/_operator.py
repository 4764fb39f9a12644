"""The scaled Hessian T H T as an operator on flat vectors, and the vectors to try it on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flatmin import _room as room
from flatmin._types import Params
from flatmin.objective import Objective
from flatmin.scale import Scale
from flatmin.sharpness import _point as point


class ScaledHessian:
    """Multiplies flat float64 vectors by T H T, and sees whether that is symmetric.

    A second derivative that torch gets wrong is one that nothing else would tell.
    """

    def __init__(self, objective: Objective, params: Params, scale: Scale) -> None:
        self._objective, self._params, self._scale = objective, params, scale
        self._last: tuple[Tensor, Tensor] | None = None
        self._largest = 0.0
        self.skew = 0.0
        """Largest |⟨x, A y⟩ − ⟨y, A x⟩| of two vectors in a row, relative to |x| |y| and to A."""

    def __call__(self, flat: Tensor) -> Tensor:
        """Give the product; the caller may write to it."""
        vector = point.stretch(self._params, self._scale, unflatten(flat, self._params))
        bent = self._objective.hvp(self._params, vector)
        result = flatten(point.stretch(self._params, self._scale, bent))
        # A finite norm tells as much, in no memory of its own; it may overflow where nothing did.
        if not math.isfinite(float(result.norm())) and not bool(torch.isfinite(result).all()):
            raise ValueError(
                "the curvature at params must be finite; a diverged network has no sharpness, and "
                "float32 may overflow where float64 does not."
            )
        self._compare(flat, result)
        return result

    def _compare(self, flat: Tensor, result: Tensor) -> None:
        length = float(flat.norm())
        self._largest = max(self._largest, float(result.norm()) / length)
        if self._last is not None and self._largest:
            other, its = self._last
            apart = abs(float(torch.dot(other, result)) - float(torch.dot(flat, its)))
            self.skew = max(self.skew, apart / (self._largest * length * float(other.norm())))
        if self._last is None:
            self._last = flat.clone(), result.clone()
        else:
            torch._foreach_copy_(self._last, (flat, result))


def nothing_seen(condition: bool) -> tuple[bool, str]:
    """Condition and sentence of a warning, for a curvature of which nothing was seen."""
    return condition, (
        "the scaled curvature T H T is zero in every direction that was tried; with a "
        "zero-initialized layer, or a loss at its floor, that is no evidence of flatness."
    )


def signs(params: Params, generator: torch.Generator) -> Tensor:
    """Draw ±1, name by name and without regard to the numbers: a rescaled network gets the same."""
    drawn = room.like(list(params.values()))
    for t in drawn:
        t.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
    return flatten(dict(zip(params, drawn, strict=True)))


def gaussian(params: Params, generator: torch.Generator) -> Tensor:
    """Draw normal numbers, likewise."""
    drawn = room.like(list(params.values()))
    for t in drawn:
        t.normal_(generator=generator)
    return flatten(dict(zip(params, drawn, strict=True)))


def flatten(vector: Params) -> Tensor:
    """Join all numbers into one float64 vector."""
    tensors = [t.detach() for t in vector.values()]
    sizes = [t.numel() for t in tensors]
    flat = room.row(sum(sizes), torch.float64, tensors[0].device)
    for part, t in zip(torch.split(flat, sizes), tensors, strict=True):
        part.view(t.shape).copy_(t)
    return flat


def unflatten(flat: Tensor, like: Params) -> dict[str, Tensor]:
    """Undo ``flatten``, with the shapes and dtypes of ``like``."""
    pieces = torch.split(flat, [t.numel() for t in like.values()])
    found = room.like(list(like.values()))
    return {
        name: t.copy_(piece.view(t.shape))
        for (name, t), piece in zip(zip(like, found, strict=True), pieces, strict=True)
    }
