"""What a variant remembers of each parameter, kept where the base keeps its own.

So it is saved, loaded, cast and sharded with the state of the base.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from flatmin.optim._several import Several


def renewed(
    base: Optimizer,
    key: str,
    inside: Callable[[dict[str, Any]], bool],
    new: Callable[[Tensor, Tensor | None], Tensor | None],
) -> Callable[[], None]:
    """Compute what is to be remembered, before the base steps, and write it after.

    Before, since a base may change gradients; after, since many take an entry in the state that is
    not empty for one that they have begun.

    Args:
        base: The optimizer, or several as one, that owns the state.
        key: Its name in the state of a parameter.
        inside: Whether a group is remembered.
        new: Parameter and what was remembered of it, if anything, to what shall be.

    Returns:
        What writes it.
    """
    owners = base.optimizers if isinstance(base, Several) else (base,)
    values = [
        (owner.state, p, new(p, owner.state.get(p, {}).get(key)))
        for owner in owners
        for group in owner.param_groups
        if inside(group)
        for p in group["params"]
    ]

    def write() -> None:
        for state, p, value in values:
            if value is not None:
                state.setdefault(p, {})[key] = value
            elif key in state.get(p, {}):
                del state[p][key]

    return write
