"""Parameters tied by their memory, as by a transposed view that is kept, and not by name.

A step of an optimizer moves all that share the memory. At a point of its own each name has a tensor
of its own, so that the tie would be cut.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from flatmin._memory import Memory, meet
from flatmin._types import Params
from flatmin.objective._kept import Kept, beside, kept_in
from flatmin.objective._structure import map_tensors, tensors


def tie_fault(
    model: nn.Module, params: Params, loss: Callable[[Params], float] | None
) -> str | None:
    """A sentence about the first tensor that shares memory with a parameter and is used beside it.

    Args:
        model: The network; it is left as it was.
        params: Its own parameters.
        loss: At given parameters; called only if the model keeps such tensors. None takes them for
            used.
    """
    named, memory = dict(model.named_parameters()), Memory(model)

    def tied(t: Tensor) -> list[str]:
        names = [name for name in sorted(memory.names_of(t)) if name in params]
        return [name for name in names if t is not named[name] and meet(t, named[name])]

    for name, p in named.items():
        for other in tied(p):
            return _sentence(repr(name), other)
    own = {id(p) for p in named.values()}
    for kept in kept_in(model):
        views = [t for t in tensors(kept.value) if id(t) not in own]
        for name in (name for t in views for name in tied(t)):
            if loss is None or _is_used(kept, params, loss):
                return _sentence(kept.name, name)
    return None


def _is_used(kept: Kept, params: Params, loss: Callable[[Params], float]) -> bool:
    """Whether the loss is another one with other numbers there."""
    here = loss(params)
    moved = map_tensors(lambda t: beside({"": t.detach()})[""], kept.value)
    try:
        kept.container[kept.key] = moved
        return loss(params) != here
    finally:
        kept.container[kept.key] = kept.value


def _sentence(name: str, other: str) -> str:
    return (
        f"each parameter must be one tensor, but {name} shares memory with {other!r} and would not "
        "be seen to move with it; make it in forward, as in self.layer.weight.t(), or register one "
        "nn.Parameter under both names."
    )
