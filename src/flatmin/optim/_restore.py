"""The way back: every weight gets its old value, bit for bit, where it lies now."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from flatmin.optim._workspace import Workspace, is_shared

Move = tuple[Tensor, Tensor, Workspace | None]
"""A parameter, the memory that it is to lie in, and who has lent that."""


@dataclass(slots=True)
class Saved:
    """What weights were before a climb.

    Attributes:
        old: Tensors and their old values, in the order in which they were shifted. The tensors are
            parameters or lie in the memory of some.
        views: Parameters of which parts were shifted, each with another handle to its memory.
        moving: Parameters that are to lie in other memory, where their shifted values stand, that
            memory, and who has lent it: nobody, if it was the gradient's.
        moved: Those that do: the parameter, its own memory, the address of the other one, and who
            gets that back.
        seen: Whether somebody else may have looked at the weights since.
    """

    old: list[tuple[list[Tensor], list[Tensor]]] = field(default_factory=list)
    views: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    moving: list[Move] = field(default_factory=list)
    moved: list[tuple[Tensor, Tensor, int, Workspace | None]] = field(default_factory=list)
    seen: bool = False

    def __bool__(self) -> bool:
        """Whether any weight is elsewhere than it was."""
        return bool(self.old or self.moved)

    def move(self) -> None:
        """Let the parameters that are to move lie in their other memory."""
        for param, other, lender in self.moving:
            self.moved.append((param, param.detach(), other.data_ptr(), lender))
            lay(param, other)
        self.moving.clear()
        self.seen = True

    def restore(self) -> None:
        """Put the weights back, last first, so that overlaps come out right.

        Nothing is left to do afterwards: a second call, after one that was interrupted or not, does
        the rest or nothing. A body may have put other tensors behind a parameter's ``data``; they
        get the values too. So does memory that a parameter was moved to and that somebody looks at
        now, by a view made in the body: the parameter stays there.

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
            for param, memory, address, lender in reversed(self.moved):
                if self.seen and (param.data_ptr() != address or is_shared(param)):
                    if why := _put(param, memory):
                        lost.append(why)
                else:
                    other = param.data
                    lay(param, memory)
                    if lender is not None and other.data_ptr() != memory.data_ptr():
                        lender.take_back(other)
        if self:
            torch.clear_autocast_cache()  # which may hold the perturbed weights in half precision
        for done in (self.old, self.views, self.moving, self.moved):
            done.clear()
        if lost:
            raise RuntimeError(
                f"inside perturbed(), {', '.join(lost)}, and cannot be put back; all other weights "
                "are as they were. Change parameters outside the block."
            )


def lay(param: Tensor, memory: Tensor) -> None:
    """Let a parameter lie in this memory, which autograd takes for a change of its values."""
    param.data = memory
    torch.autograd.graph.increment_version(param)


def _put(weight: Tensor, value: Tensor) -> str:
    """Copy a value back, or say why that is impossible."""
    if weight.shape != value.shape:
        return f"a parameter of shape {tuple(value.shape)} became one of {tuple(weight.shape)}"
    weight.copy_(value)
    return ""


def explain(error: BaseException) -> None:
    """Say in a note to autograd's error what has moved, if it complains of that."""
    if "modified by an inplace operation" in str(error):
        error.add_note(
            "flatmin: perturbed() moves the weights in place, so what its body differentiates has "
            "to be computed in it: repeat the forward pass there."
        )
