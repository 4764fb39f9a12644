"""The way back: every weight gets its old value, bit for bit, where it lies now."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(slots=True)
class Saved:
    """What weights were before a climb.

    Attributes:
        old: Tensors and their old values, in the order in which they were shifted. The tensors are
            parameters or lie in the memory of some.
        views: Parameters of which parts were shifted, each with another handle to its memory.
    """

    old: list[tuple[list[Tensor], list[Tensor]]] = field(default_factory=list)
    views: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def restore(self) -> None:
        """Copy the weights back, last first, so that overlaps come out right.

        Nothing is left to do afterwards: a second call, after one that was interrupted or not, does
        the rest or nothing. A body may have put other tensors behind a parameter's ``data``; they
        get the values too.

        Raises:
            RuntimeError: If a parameter has another shape now; all others are back then.
        """
        lost: list[str] = []
        with torch.no_grad():
            for weights, values in reversed(self.old):
                if all(w.shape == v.shape for w, v in zip(weights, values, strict=True)):
                    torch._foreach_copy_(weights, values)
                else:
                    lost += [
                        why for pair in zip(weights, values, strict=True) if (why := _put(*pair))
                    ]
            for param, memory in self.views:
                if param.data_ptr() != memory.data_ptr() and (why := _put(param, memory)):
                    lost.append(why)
        if self.old:
            torch.clear_autocast_cache()  # which may hold the perturbed weights in half precision
        self.old.clear()
        self.views.clear()
        if lost:
            raise RuntimeError(
                f"inside perturbed(), {', '.join(lost)}, and cannot be put back; all other weights "
                "are as they were. Change parameters outside the block."
            )


def _put(weight: Tensor, value: Tensor) -> str:
    """Copy a value back, or say why that is impossible."""
    if weight.shape != value.shape:
        return f"a parameter of shape {tuple(value.shape)} became one of {tuple(weight.shape)}"
    weight.copy_(value)
    return ""
