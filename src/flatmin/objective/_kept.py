"""Tensors that a model keeps from an earlier call, such as biases looked up once in eval mode.

Kept tensors that were computed from parameters stand still when those move, and every measure would
be that of another function. Each is taken away for a moment: if the model makes it anew, and the
loss is the same at the parameters and another one beside them, it was such a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flatmin._streams import stream
from flatmin._types import Params

_SHIFT = 0.1
"""How far beside the parameters, in units of their root mean square, or of one if they are zero."""

_Place = tuple[str, dict[Any, Any], Any]
"""A name to tell, the attributes of a module or a dictionary among them, and the key there."""


def kept_fault(model: nn.Module, params: Params, loss: Callable[[Params], float]) -> str | None:
    """A sentence about the first tensor that was computed from parameters and would not follow.

    Args:
        model: The network; it is left as it was.
        params: Its own parameters.
        loss: At given parameters; called only if the model keeps tensors.
    """
    found = list(_kept(model))
    if not found:
        return None
    beside = _beside(params)
    here, there, again = loss(params), loss(beside), loss(beside)
    if not math.isfinite(there) or there != again:
        return None

    def computed(*places: _Place) -> bool | None:
        """Whether any of them was; None if the model has a use of its own for them."""
        try:
            with _without(places):
                anew, moved = loss(params), loss(beside)
        except Exception:  # a stranger's model may say so in any way
            return None
        if not math.isclose(anew, here, rel_tol=1e-5, abs_tol=1e-12):
            return None
        return abs(moved - there) > 10.0 * abs(anew - here)

    if computed(*found) is False:  # as a rule; else one by one
        return None
    for place in found:
        if computed(place):
            return (
                f"the loss must follow the parameters, but {place[0]} was computed from some of "
                "them in an earlier call and is used again, so that it would not be seen to move; "
                "clear it first, as model.train() and then model.eval() do in timm and "
                "transformers."
            )
    return None


def _kept(model: nn.Module) -> Iterator[_Place]:
    """Floating tensors in plain attributes and in dictionaries there."""
    for path, module in model.named_modules():
        dot = f"{path}." if path else ""
        for name, value in vars(module).items():
            if _is_floating(value):
                yield f"{dot}{name}", vars(module), name
            elif type(value) is dict and not name.startswith("_"):
                for key in [k for k, v in value.items() if _is_floating(v)]:
                    yield f"{dot}{name}[{key!r}]", value, key


def _is_floating(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and not isinstance(value, nn.Parameter)
        and value.is_floating_point()
    )


@contextmanager
def _without(places: Sequence[_Place]) -> Iterator[None]:
    """Leave None in attributes and nothing in dictionaries, as before anything is kept."""
    before = [(holder, dict(holder)) for _, holder, _ in places]
    try:
        for _, holder, key in places:
            if "_parameters" in holder:
                holder[key] = None
            else:
                del holder[key]
        yield
    finally:
        for holder, entries in reversed(before):
            if list(holder) != list(entries):  # in the order that it had
                holder.clear()
            holder.update(entries)


def _beside(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    generator = stream("beside the parameters")
    moved = {}
    for name, p in params.items():
        if not (p.is_floating_point() or p.is_complex()) or not p.numel():
            moved[name] = p
            continue
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.device)
        size = p.abs().double().square().mean().sqrt()
        moved[name] = (p + _SHIFT * torch.where(size > 0, size, 1.0) * noise).to(p.dtype)
    return moved
