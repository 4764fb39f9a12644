"""A model at another point: while it is evaluated, its tensors are replaced by others.

They stay replaced until the backward pass is over, for what recomputes a part of the model then
(activation checkpointing) must meet the same parameters. Buffers, and tensors kept elsewhere, are
replaced by copies, so that whatever a forward pass writes is gone when the originals return.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flatmin import _room as room
from flatmin._types import Params
from flatmin.objective._checks import checked
from flatmin.objective._places import Holder, Place, entries, holds, places_of, put_back


class Substitution:
    """What stands in for a model's tensors at one point.

    Args:
        model: The network; it holds its own tensors except inside ``fresh``.
        loss_function: Where it is a module too, its own tensors are widened to float64, as outputs
            are.
        point: Names of parameters to tensors, which are copied into leaves of a graph. Other
            parameters keep their values.

    Attributes:
        point: The leaves.
    """

    def __init__(self, model: nn.Module, loss_function: object, point: Params) -> None:
        named = self._named = dict(model.named_parameters(remove_duplicate=False))
        self.point: dict[str, Tensor] = {}
        self._roots = [model, *([loss_function] if isinstance(loss_function, nn.Module) else [])]
        self._model = model
        # The originals are kept, for an identity is good only as long as its object lives.
        self._pairs: dict[int, tuple[Tensor, Tensor]] = {}
        self._sources: list[tuple[str, Tensor, Tensor]] = []
        copies = room.copies(list(point.values()))
        for (name, given), copied in zip(point.items(), copies, strict=True):
            own = checked(named, name, given)
            if id(own) in self._pairs:
                raise ValueError(
                    f"params must name a tied parameter once, got {name!r} as another name; use "
                    "those of model.named_parameters()."
                )
            self._replace(name, own, copied.requires_grad_(), given)
            self.point[name] = self._pairs[id(own)][1]
        for name, own in named.items():
            if id(own) in self._pairs:
                continue
            # Integers, as in quantized layers, are no part of any point.
            copied = own.detach().clone() if _is_inexact(own) else own
            self._replace(name, own, copied, own)

    def _replace(self, name: str, own: Tensor, copied: Tensor, source: Tensor) -> None:
        self._pairs[id(own)] = (own, copied)
        self._sources.append((name, source, copied))

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Let the model stand at the point, its other state as it is outside."""
        found: dict[int, Holder] = {}
        pairs = dict(self._pairs)
        own = list(places_of(self._model, found))
        others = [place for root in self._roots[1:] for place in places_of(root, found)]
        try:
            _fill(own, pairs, widen=False)
            _fill(others, pairs, widen=True)
            self._check_reached()
            yield
        finally:
            places = own + others
            try:
                put_back(places)
            except BaseException:
                # An interrupt in here must not leave half of it; putting back twice is harmless.
                put_back(places)
                raise

    def check_unchanged(self) -> None:
        """Refuse a forward pass that wrote into parameters.

        Raises:
            ValueError: If it did: what it computed is a function of the parameters that autograd
                does not know.
        """
        for name, source, copied in self._sources:
            now = copied.detach()
            if now is not source and not _same(now, source.detach()):
                raise ValueError(
                    f"the forward pass must not change parameters, but it changed {name!r}, so "
                    "that the loss is no differentiable function of them; switch that off, for "
                    "example max_norm of an embedding or the update of a momentum encoder."
                )

    def bypassed(self, loss: Tensor) -> list[str]:
        """Sentences about parameters that the loss reaches past the model, as in a closure."""
        names = {id(own): name for name, own in self._named.items()}
        waiting, seen, found = [loss.grad_fn], set(), []
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)
            found += [names[id(leaf)]] if id(leaf) in names else []
            waiting += [following for following, _ in node.next_functions]
        return [
            f"the loss must meet the parameters in the model, but it reaches {name!r} on another "
            "way, such as a list made beforehand, and would not see it move; take it from the "
            "model when the loss is evaluated, as in model.parameters()."
            for name in found
        ]

    def _check_reached(self) -> None:
        named = dict(self._model.named_parameters(remove_duplicate=False))
        for name, standing in self.point.items():
            if named[name] is not standing:
                raise TypeError(
                    f"the parameter {name!r} of {type(self._model).__name__} cannot be replaced, "
                    "as in scripted modules; pass the plain network."
                )


@contextmanager
def forgetting(model: nn.Module) -> Iterator[None]:
    """Let a model keep no tensor of the calls in the block, in no attribute and no container."""
    places = list(places_of(model, {}))
    try:
        yield
    finally:
        put_back(places)


def _fill(places: Sequence[Place], pairs: dict[int, tuple[Tensor, Tensor]], *, widen: bool) -> None:
    for _, container, before in places:
        if not before:
            continue
        for key, value in entries(before):
            if isinstance(value, Tensor) or (isinstance(value, tuple) and holds(value)):
                container[key] = _standing(value, pairs, widen)


def _standing(value: Any, pairs: dict[int, tuple[Tensor, Tensor]], widen: bool) -> Any:
    if isinstance(value, Tensor):
        if id(value) not in pairs:
            copied = value.detach().clone()
            if widen and copied.is_floating_point():
                copied = copied.double()
            pairs[id(value)] = (value, copied)
        return pairs[id(value)][1]
    if isinstance(value, tuple) and holds(value):
        parts = [_standing(part, pairs, widen) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _is_inexact(t: Tensor) -> bool:
    return t.is_floating_point() or t.is_complex()


def _same(now: Tensor, source: Tensor) -> bool:
    if torch.equal(now, source):
        return True
    return now.shape == source.shape and bool(torch.isclose(now, source, 0, 0, True).all())
