"""The factor that gradients were multiplied with since their sizes were taken, if it is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from flatmin.optim._stretches import is_row

# On a CPU the product with itself takes half the time of the norm, and in these types it loses
# nothing that the norm would keep.
_DOTTED = (torch.float32, torch.float64)


class Sizes:
    """Euclidean norms of tensors, each by itself, taken on a walk through them.

    Attributes:
        dtypes: Types of the tensors.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._squares: list[Tensor] = []
        self._norms: list[Tensor] = []
        self.dtypes: set[torch.dtype] = set()

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Go on to these.

        Args:
            tensors: As ``stretches`` gives them: a stretch of a large one, or several.
        """
        first = tensors[0]
        self.dtypes.update(t.dtype for t in tensors)
        if len(tensors) == 1 and _has_product(first):
            self._squares.append(torch.dot(first, first))
        else:
            # A norm of half precision ends at 65,504.
            wide = [v.float() if v.dtype == torch.float16 else v for v in map(values, tensors)]
            self._norms += torch._foreach_norm(wide)

    @cached_property
    def all(self) -> Tensor:
        """Those of the walk, when it is over, in float64 on the CPU."""
        squares, norms = (
            torch.stack([size.to(some[0].device) for size in some]).cpu().double()
            if some
            else torch.zeros(0, dtype=torch.float64, device="cpu")
            for some in (self._squares, self._norms)
        )
        return torch.cat([squares.sqrt(), norms])

    def are_finite(self) -> bool:
        """Whether all are; else a number is not, or its square overflowed."""
        return bool(self.all.isfinite().all())


def _has_product(t: Tensor) -> bool:
    return is_row(t) and t.is_cpu and t.dtype in _DOTTED


def values(t: Tensor) -> Tensor:
    """The numbers of a tensor that are there, which of a sparse one are few."""
    return t.coalesce().values() if t.is_sparse else t


def common_factor(before: Sizes, now: Sizes) -> float | None:
    """What all sizes have been multiplied with; None where they were changed otherwise.

    Changed is what differs by more than the rounding of the coarsest type explains.

    Args:
        before: Those of some tensors.
        now: Those of the same.
    """
    old, new = before.all, now.all
    if old.shape != new.shape:
        return None
    largest = int(old.argmax())
    if not old[largest]:
        return None if new.any() else 1.0
    factor = (new[largest] / old[largest]).item()
    # What rounding does to a product: little to a norm, more to a single number.
    dtypes = before.dtypes
    allowed = min(0.01, 4096 * max(torch.finfo(dtype).eps for dtype in dtypes))
    # Squares of less vanish, and so do numbers of half precision, whose sums have single.
    summed = {torch.promote_types(dtype, torch.float32) for dtype in dtypes}
    least = max(math.sqrt(info.tiny) / info.eps for info in map(torch.finfo, dtypes | summed))
    least = min(least * max(1.0, factor), 1e-3 * factor * old[largest].item())
    expected = factor * old
    bound = torch.where(expected > least, allowed * expected, least)
    return factor if bool(((new - expected).abs() <= bound).all()) else None
