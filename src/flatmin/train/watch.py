"""What is looked at while a network is trained, without changing the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from flatmin.train._conditions import random_state, set_random_state
from flatmin.train._values import fitted

Watch = Callable[[nn.Module], Mapping[str, float | None]]
"""A network to numbers by name; None for one that is not finite."""

_TAKEN = ("event", "step")  # what a record of the log says by itself


@dataclass(frozen=True, slots=True)
class Watching:
    """A watch and when it looks.

    Args:
        watch: What is called.
        every: Steps between its calls.

    Example:
        >>> Watching(lambda network: {}, 10).due(20)
        True
    """

    watch: Watch
    every: int

    @staticmethod
    def asked(watch: Watch | None, every: int | None, parallel: str) -> Watching | None:
        """What the arguments of ``train`` ask for.

        Raises:
            ValueError: If one of the two is missing, or no process has the whole network.
        """
        if watch is None and every is None:
            return None
        if watch is None or every is None:
            raise ValueError("watch and watch_every go together; give both, or neither.")
        if fitted("watch_every", every, int) < 1:
            raise ValueError(f"watch_every must be at least 1, got {every}.")
        if parallel != "ddp":
            raise ValueError(
                f"a watch is shown the whole network, which no process has with {parallel}; leave "
                "it out, or take parallel='ddp'."
            )
        return Watching(watch, every)

    def due(self, step: int) -> bool:
        """Whether to look after this step."""
        return step % self.every == 0

    def found(self, network: nn.Module, device: torch.device) -> dict[str, float | None]:
        """What the watch finds; every source of random numbers stays where it is.

        Raises:
            ValueError: If it uses a name that the log needs.
        """
        before = random_state(device)
        try:
            found = dict(self.watch(network))
        finally:
            set_random_state(before, device)
        for name in _TAKEN:
            if name in found:
                raise ValueError(f"a watch must not call a number {name!r}; call it otherwise.")
        return found
