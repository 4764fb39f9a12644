"""The settings that each group has beside those of the base, and what is none of them."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from flatmin._given import plain
from flatmin.optim._several import Several

# What the widespread `sam.py` keeps in its groups. A base may have a rho of its own: Adadelta has.
_OF_SAM_PY = frozenset({"rho", "adaptive"})

# Which settings of which groups a wrapper has filled in, so that the next one around the same base,
# as in a notebook's cell that runs again, does not take them for the user's.
_filled: WeakKeyDictionary[Optimizer, set[tuple[int, str]]] = WeakKeyDictionary()


def drop_filled(base: Optimizer) -> None:
    """Take out of the groups what an earlier wrapper around the same base has filled in."""
    for owner in owners(base):
        for index, key in _filled.pop(owner, set()):
            if index < len(owner.param_groups):
                owner.param_groups[index].pop(key, None)


def are_complete(groups: Iterable[dict[str, Any]], defaults: Mapping[str, float]) -> bool:
    """Whether no setting is missing, and none of another wrapper's is there."""
    return all(defaults.keys() <= group.keys() and _OF_SAM_PY.isdisjoint(group) for group in groups)


def complete(base: Optimizer, defaults: Mapping[str, float], known: Collection[str]) -> None:
    """Fill in the settings where they are missing, and make them numbers that can be saved.

    Args:
        base: Whose groups are changed.
        defaults: Settings by name.
        known: The settings of the base.

    Raises:
        ValueError: If a group has settings of another wrapper, which nobody would look at, or
            several numbers for one.
    """
    for owner in owners(base):
        for index, group in enumerate(owner.param_groups):
            if found := _foreign(group, known):
                raise ValueError(
                    f"a group has {' and '.join(found)}, which its optimizer does not know; the "
                    "radius of a group is sam_rho, as in {'params': ..., 'sam_rho': 0.1}, and ASAM "
                    "a class."
                )
            for key, value in defaults.items():
                if key not in group:
                    _filled.setdefault(owner, set()).add((index, key))
                group[key] = own = plain(group.get(key, value))
                if isinstance(own, Tensor) and own.numel() != 1:
                    raise ValueError(
                        f"{key} of a group must be one number, got a tensor of shape "
                        f"{tuple(own.shape)}; parameters with another radius are another group."
                    )


def refuse_foreign(state_dict: Any, known: Collection[str]) -> None:
    """Refuse what a `sam.py` has saved: it lacks the state of its base.

    Raises:
        ValueError: If its groups are such.
    """
    groups = state_dict.get("param_groups", ()) if isinstance(state_dict, Mapping) else ()
    if any(_foreign(group, known) for group in groups):
        raise ValueError(
            "this is the state of a `sam.py`, with rho and adaptive in its groups and without the "
            "momentum of its base; load the weights of the network alone, and begin with a new "
            "optimizer."
        )


def are_unscaled_now() -> bool:
    """Whether those who ask for the groups are about to unscale the gradients in them.

    A ``GradScaler`` tells nobody else, and does it once a step.
    """
    if torch.compiler.is_compiling():
        return False
    return sys._getframe(2).f_code.co_name == "_unscale_grads_"


def owners(base: Optimizer) -> tuple[Optimizer, ...]:
    """The optimizers that own groups: several, or the base itself."""
    return base.optimizers if isinstance(base, Several) else (base,)


def _foreign(group: Mapping[str, Any], known: Collection[str]) -> list[str]:
    return sorted(_OF_SAM_PY & group.keys() - set(known))
