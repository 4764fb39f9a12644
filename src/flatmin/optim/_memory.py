"""What a variant remembers of each parameter, kept where the base keeps its own.

So it is saved, loaded, cast and sharded with the state of the base. Write it after the base has
stepped: many bases take an entry that is not empty for one that they have begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from flatmin.optim import _sharded
from flatmin.optim._several import Several
from flatmin.optim._spare import is_own
from flatmin.optim._workspace import clones


class Memory:
    """One tensor of each parameter, under one name in the states of the base."""

    def __init__(self, base: Optimizer, key: str, inside: Callable[[dict[str, Any]], bool]) -> None:
        """Look into the states of the groups that are inside."""
        owners = base.optimizers if isinstance(base, Several) else (base,)
        self._key = key
        self._owners = {
            p: owner.state
            for owner in owners
            for group in owner.param_groups
            if inside(group)
            for p in group["params"]
        }

    @property
    def params(self) -> list[Tensor]:
        """The parameters of these groups."""
        return list(self._owners)

    def read(self) -> dict[Tensor, Tensor]:
        """What is remembered, where anything is."""
        found = {p: remembered(state, p, self._key) for p, state in self._owners.items()}
        return {p: value for p, value in found.items() if value is not None}

    def write(self, values: dict[Tensor, Tensor]) -> None:
        """Remember this; of a parameter that is not among them, nothing."""
        for p, state in self._owners.items():
            if p in values:
                state.setdefault(p, {})[self._key] = values[p]
            elif self._key in state.get(p, {}):
                del state[p][self._key]


def remembered(states: Mapping[Tensor, Any], p: Tensor, key: str) -> Tensor | None:
    """What is remembered of a parameter; of one that was pruned to another shape, nothing."""
    value: Tensor | None = states.get(p, {}).get(key)
    return value if value is not None and value.shape == p.shape else None


def gradients_of(params: Sequence[Tensor]) -> dict[Tensor, Tensor]:
    """The gradients that there are, each spread over processes as its parameter is."""
    return {p: _sharded.summed(p.grad.detach(), p) for p in params if p.grad is not None}


def own_gradients(params: Sequence[Tensor]) -> dict[Tensor, Tensor]:
    """The same to be written to: in their own memory, or copied where somebody looks at them."""
    seen = {p for p in params if p.grad is not None and not is_own(p)}
    found = gradients_of(params)
    return found | copied({p: g for p, g in found.items() if p in seen}, {})


def copied(new: dict[Tensor, Tensor], old: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
    """Copies of new tensors, in the memory of old ones where that fits."""
    fits = {p for p in new if p in old and not (old[p].is_sparse or new[p].is_sparse)}
    # torch has no operation that copies many spread tensors at once.
    spread = {p for p in new if p not in fits and _sharded.spread(new[p]) is not None}
    whole = [p for p in new if p not in fits and p not in spread]
    with torch.no_grad():
        if fits:
            torch._foreach_copy_(locals_of(old[p] for p in fits), locals_of(new[p] for p in fits))
        made = {p: new[p].clone() for p in spread}
        if whole:
            made.update(zip(whole, clones([new[p] for p in whole]), strict=True))
    return {p: old[p] if p in fits else made[p] for p in new}


def locals_of(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The parts of this process, in the same memory."""
    return [_sharded.local(t) for t in tensors]
