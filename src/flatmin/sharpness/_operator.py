"""The scaled Hessian T H T as an operator on flat vectors, and the vectors to try it on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin._types import Params
from flatmin.objective import Objective
from flatmin.scale import Scale
from flatmin.sharpness import _point as point


def scaled_hessian(
    objective: Objective, params: Params, scale: Scale
) -> Callable[[Tensor], Tensor]:
    """Multiply a flat float64 vector by T H T."""

    def product(flat: Tensor) -> Tensor:
        vector = point.stretch(params, scale, unflatten(flat, params))
        bent = point.stretch(params, scale, objective.hvp(params, vector))
        result = flatten(bent)
        if not bool(torch.isfinite(result).all()):
            raise ValueError(
                "the curvature at params must be finite; a diverged network has no sharpness, and "
                "float32 may overflow where float64 does not."
            )
        return result

    return product


def nothing_seen(condition: bool) -> tuple[bool, str]:
    """Condition and sentence of a warning, for a curvature of which nothing was seen."""
    return condition, (
        "the scaled curvature T H T is zero in every direction that was tried; with a "
        "zero-initialized layer, or a loss at its floor, that is no evidence of flatness."
    )


def signs(params: Params, generator: torch.Generator) -> Tensor:
    """Draw ±1, name by name and without regard to the numbers: a rescaled network gets the same."""
    return flatten(
        {
            name: torch.empty_like(t, requires_grad=False).bernoulli_(0.5, generator=generator) * 2
            - 1
            for name, t in params.items()
        }
    )


def gaussian(params: Params, generator: torch.Generator) -> Tensor:
    """Draw normal numbers, likewise."""
    return flatten(
        {
            name: torch.empty_like(t, requires_grad=False).normal_(generator=generator)
            for name, t in params.items()
        }
    )


def flatten(vector: Params) -> Tensor:
    """Join all numbers into one float64 vector."""
    tensors = list(vector.values())
    return torch.cat([t.detach().double().flatten().to(tensors[0].device) for t in tensors])


def unflatten(flat: Tensor, like: Params) -> dict[str, Tensor]:
    """Undo ``flatten``, with the shapes and dtypes of ``like``."""
    pieces = torch.split(flat, [t.numel() for t in like.values()])
    return tree.tree_map(
        lambda t, piece: piece.reshape(t.shape).to(t), like, dict(zip(like, pieces, strict=True))
    )
