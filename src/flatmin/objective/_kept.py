"""Tensors that a model keeps from an earlier call, such as biases looked up once in eval mode.

Kept tensors that were computed from parameters stand still when those move, and every measure would
be that of another function. Each is taken away for a moment: if the model makes it anew, and the
loss is the same at the parameters and another one beside them, it was such a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from flatmin._streams import stream
from flatmin._types import Params
from flatmin.objective._places import Holder, entries, name_of, places_of

_SHIFT = 0.1
"""How far beside the parameters, in units of their root mean square, or of one if they are zero."""


class Kept(NamedTuple):
    """A tensor in a container, or in a tuple there."""

    name: str
    container: Any
    key: Any
    value: Any


def kept_fault(model: nn.Module, params: Params, loss: Callable[[Params], float]) -> str | None:
    """A sentence about the first tensor that was computed from parameters and would not follow.

    Args:
        model: The network; it is left as it was.
        params: Its own parameters.
        loss: At given parameters; called only if the model keeps tensors.
    """
    found = list(kept_in(model))
    if not found:
        return None
    aside = beside(params)
    here, there, again = loss(params), loss(aside), loss(aside)
    if not math.isfinite(there) or there != again:
        return None

    def answer(kept: Sequence[Kept], gone: bool) -> bool | None:
        try:
            with _without(kept, gone):
                anew = loss(params)
                if not math.isclose(anew, here, rel_tol=1e-5, abs_tol=1e-12):
                    return None
                moved = loss(aside)
        except Exception:  # a stranger's model may say so in any way
            return None
        return abs(moved - there) > 10.0 * abs(anew - here)

    def computed(kept: Sequence[Kept]) -> bool | None:
        """Whether any of them was; None if the model has a use of its own for them."""
        answers = [answer(kept, gone) for gone in (False, True)]
        return None if answers == [None, None] else any(answers)

    def first(kept: Sequence[Kept]) -> Kept | None:
        known = computed(kept)
        if known is False:  # as a rule
            return None
        if len(kept) == 1:
            return kept[0] if known else None
        half = len(kept) // 2
        return first(kept[:half]) or first(kept[half:])

    fault = first(found)
    return fault and (
        f"the loss must follow the parameters, but {fault.name} was computed from some of them in "
        "an earlier call and is used again, so that it would not be seen to move; clear it first, "
        "as model.train() and then model.eval() do in timm and transformers."
    )


def kept_in(model: nn.Module) -> Iterator[Kept]:
    """Floating tensors that are no parameters, in whatever a model keeps."""
    norms = [module for module in model.modules() if isinstance(module, _NormBase)]
    statistics = {id(t) for norm in norms for t in norm.buffers(recurse=False)}
    known: dict[int, Holder] = {}
    for holder, container, before in places_of(model, known):
        for key, value in entries(before):
            if _is_floating(value) and id(value) not in statistics:
                yield Kept(name_of(holder, key, known), container, key, value)


def _is_floating(value: object) -> bool:
    if isinstance(value, tuple):
        return any(map(_is_floating, value))
    return (
        isinstance(value, Tensor)
        and not isinstance(value, nn.Parameter)
        and value.is_floating_point()
    )


@contextmanager
def _without(kept: Sequence[Kept], gone: bool) -> Iterator[None]:
    """Leave None in their places, or nothing: as before anything is kept."""
    before = [(container, container.copy()) for _, container, _, _ in kept]
    try:
        for _, container, key, _ in reversed(kept):  # what follows in a list moves up
            if gone:
                del container[key]
            else:
                container[key] = None
        yield
    finally:
        for container, entire in reversed(before):
            if not isinstance(container, dict):
                container.clear()
                container.extend(entire)
                continue
            if list(container) != list(entire):  # in the order that it had
                container.clear()
            container.update(entire)


def beside(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors a little aside, the same ones each time."""
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
