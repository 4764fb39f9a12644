"""Lanczos iteration with full re-orthogonalization."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flatmin import _room as room

Matrix = NDArray[np.float64]

# A remainder this small, relative to the matrix, is rounding: the space is exhausted.
_EXHAUSTED = 1e-12


def lanczos(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    steps: int,
    *,
    fresh: Callable[[], Tensor] | None = None,
) -> Iterator[tuple[Matrix, float]]:
    """Grow the tridiagonal matrix Qᵀ A Q, a row with each product, and the remainder's norm.

    Stops where the space that ``start`` reaches is exhausted, or goes on from ``fresh`` vectors.
    Two rounds of Gram–Schmidt keep the basis orthogonal; it costs 8 bytes a number. What
    ``product`` and ``fresh`` return is written to.
    """
    basis: list[Tensor] = []
    diagonal: list[float] = []
    beside: list[float] = []
    (vector,) = room.copies([start])
    vector.div_(start.norm())
    for step in range(min(steps, start.numel())):
        basis.append(vector)
        remainder = product(vector)
        diagonal.append(float(torch.dot(vector, remainder)))
        remainder = _orthogonal(remainder, basis)
        length = float(remainder.norm())
        matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        exhausted = length <= _EXHAUSTED * np.abs(matrix).max()
        if exhausted:
            length = 0.0
        yield matrix, length
        if exhausted:
            if fresh is None or step + 1 == start.numel():
                return
            remainder = _orthogonal(fresh(), basis)
        beside.append(length)
        vector = remainder.div_(remainder.norm())


def _orthogonal(vector: Tensor, basis: list[Tensor]) -> Tensor:
    # In place: at ten million numbers, a new vector for each product would cost most of the time.
    for _ in range(2):
        for known in basis:
            vector.addcmul_(known, torch.dot(known, vector), value=-1.0)
    return vector
