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


def inner(params: Sequence[Tensor], a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Inner product, of complex numbers as of pairs of real ones.

    In float32 or better, and again in float64 where products vanish or overflow.

    Args:
        params: The parameters.
        a: A tensor for each, or this process's part where it is spread over several.
        b: Another one.
    """
    plain = _inner(params, a, b, wide=False)
    if math.isnan(plain) or 1e-30 < abs(plain) < math.inf:
        return plain
    return _inner(params, a, b, wide=True)


def _inner(
    params: Sequence[Tensor], a: Sequence[Tensor], b: Sequence[Tensor], *, wide: bool
) -> float:
    parts: dict[_sharded.Spread | None, list[Tensor]] = {}
    small: dict[tuple[_sharded.Spread | None, torch.device], list[tuple[Tensor, Tensor]]] = {}
    for p, x, y in zip(params, a, b, strict=True):
        where = _sharded.spread(p)
        x, y = _flat(x, wide=wide), _flat(y, wide=wide)
        if x.numel() < _SMALL:
            small.setdefault((where, x.device), []).append((x, y))
        else:
            parts.setdefault(where, []).append(torch.dot(x, y))
    for (where, _), pairs in small.items():
        for some in portions(pairs, itemgetter(0), _JOINED):
            x, y = (torch.cat(column) for column in zip(*some, strict=True))
            parts.setdefault(where, []).append(torch.dot(x, y))
    return sum(
        _sharded.combine(
            torch.stack([part.to(found[0].device) for part in found]).double().sum(), where, 1.0
        ).item()
        for where, found in parts.items()
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
