"""The inner product of gradients: one number over all tensors, and over all that share them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter

import torch
from torch import Tensor

from flatmin.optim import _sharded
from flatmin.optim._stretches import portions

# Below so many numbers tensors are joined, so that one operation serves many of them; so few at a
# time that a CPU has memory for them at hand.
_SMALL, _JOINED = 1 << 12, 1 << 13

_Pair = tuple[Tensor, Tensor]


def inner(params: Sequence[Tensor], a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Inner product, of complex numbers as of pairs of real ones.

    In float32 or better, and again in float64 where products vanish or overflow.

    Args:
        params: The parameters.
        a: A tensor for each, or this process's part where it is spread over several.
        b: Another one.
    """
    return inners(params, (a, b))[0]


def inners(
    params: Sequence[Tensor], *pairs: tuple[Sequence[Tensor], Sequence[Tensor]]
) -> list[float]:
    """The same of several pairs, parameter by parameter, while what they share is in the cache."""
    plain = _inners(params, pairs, wide=False)
    return [
        number
        if 1e-30 < abs(number) < math.inf  # not a number is what infinite ones may cancel to
        else _inners(params, [pair], wide=True)[0]
        for number, pair in zip(plain, pairs, strict=True)
    ]


def _inners(
    params: Sequence[Tensor],
    pairs: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]],
    *,
    wide: bool,
) -> list[float]:
    sums = [_Sum() for _ in pairs]
    for i, p in enumerate(params):
        where = _sharded.spread(p)
        for found, (a, b) in zip(sums, pairs, strict=True):
            found.add(where, _flat(a[i], wide=wide), _flat(b[i], wide=wide))
    return [found.total() for found in sums]


class _Sum:
    """The parts of one inner product, by how they are spread."""

    def __init__(self) -> None:
        self.parts: dict[_sharded.Spread | None, list[Tensor]] = {}
        self.small: dict[tuple[_sharded.Spread | None, torch.device], list[_Pair]] = {}

    def add(self, where: _sharded.Spread | None, x: Tensor, y: Tensor) -> None:
        """Add that of two rows."""
        if x.numel() < _SMALL:
            self.small.setdefault((where, x.device), []).append((x, y))
        else:
            self.parts.setdefault(where, []).append(torch.dot(x, y))

    def total(self) -> float:
        """The sum, over all that share the parameters."""
        for (where, _), pairs in self.small.items():
            for some in portions(pairs, itemgetter(0), _JOINED):
                x, y = (torch.cat(column) for column in zip(*some, strict=True))
                self.parts.setdefault(where, []).append(torch.dot(x, y))
        return sum(
            _sharded.combine(
                torch.stack([part.to(found[0].device) for part in found]).double().sum(), where, 1.0
            ).item()
            for where, found in self.parts.items()
        )


def _flat(t: Tensor, *, wide: bool) -> Tensor:
    """One row of real numbers, in a precision in which their products can be summed."""
    if t.is_sparse:
        t = t.to_dense()
    if t.is_complex():
        t = torch.view_as_real(t.resolve_conj())
    half = t.dtype in (torch.float16, torch.bfloat16)
    t = t.reshape(-1)
    return t.double() if wide else t.float() if half else t
