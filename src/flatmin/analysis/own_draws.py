"""What a stranger's data draw while they are taken: chosen by a seed, and nothing used up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from flatmin._streams import seed_for
from flatmin.train._conditions import own_randomness


@contextmanager
def drawing(data: Any, seed: int) -> Iterator[None]:
    """Let data draw what belongs to a seed; all random states are put back.

    These are the global ones of torch, numpy and Python, and generators that a loader, its samplers
    and its data set hold: a training that shuffles by one goes on as if nothing had been taken.

    Args:
        data: Whatever holds or gives batches.
        seed: The same one draws the same.

    Example:
        >>> own = torch.Generator().manual_seed(7)
        >>> loader = DataLoader(range(9), batch_size=9, shuffle=True, generator=own)
        >>> orders = []
        >>> for _ in range(2):
        ...     with drawing(loader, 0):
        ...         orders += [order.tolist() for order in loader]
        >>> orders[0] == orders[1], torch.equal(own.get_state(), own.manual_seed(7).get_state())
        (True, True)
    """
    seed = seed_for("a loader's examples", seed)
    held = [(generator, generator.get_state()) for generator in _generators(data)]
    with own_randomness(seed, torch.device("cpu")):
        try:
            for generator, _ in held:
                generator.manual_seed(seed)
            yield
        finally:
            for generator, state in held:
                generator.set_state(state)


def _generators(data: Any) -> list[torch.Generator]:
    """Those that data hold, each once, however deep."""
    waiting, seen, found = [data], set[int](), []
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, torch.Generator):
            found.append(part)
        elif part is data or isinstance(part, DataLoader | Dataset | Sampler):
            waiting += getattr(part, "__dict__", {}).values()
        elif isinstance(part, list | tuple):  # as of data sets
            waiting += (each for each in part if isinstance(each, Dataset | Sampler))
    return found
