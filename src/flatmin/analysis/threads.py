"""How many threads: all of them, or one, whichever is faster on this machine at this moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

_TRIALS = 2  # of each; the shorter one counts


@dataclass(frozen=True, slots=True)
class Threads:
    """A number of threads, and what others would have taken.

    Attributes:
        number: How many.
        seconds: Numbers of threads to the seconds of a trial; empty where nothing was tried.

    Example:
        >>> print(Threads(1, {1: 0.5, 2: 8.25}))
        1 thread (a gradient takes 0.5 s, with 2 threads 8.2 s)
        >>> print(Threads(2))
        2 threads
    """

    number: int
    seconds: dict[int, float] = field(default_factory=dict)

    def __str__(self) -> str:
        others = "".join(
            f", with {_count(number)} {taken:.2g} s"
            for number, taken in self.seconds.items()
            if number != self.number
        )
        if not others:
            return _count(self.number)
        return f"{_count(self.number)} (a gradient takes {self.seconds[self.number]:.2g} s{others})"


def fastest(trial: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> Threads:
    """Time something with one thread and with all that torch would take.

    Threads that have to wait for each other on a busy machine are slower than one, by a lot.

    Args:
        trial: What is timed, some times over.
        clock: Tells the time in seconds.

    Returns:
        The faster number; nothing is tried where torch takes one thread anyway. Torch's own
        number is as before.
    """
    every = torch.get_num_threads()
    if every == 1:
        return Threads(1)
    seconds: dict[int, list[float]] = {1: [], every: []}
    with running_in(1):
        trial()  # the first time, much else happens
    for _ in range(_TRIALS):
        for number, taken in seconds.items():
            with running_in(number):
                start = clock()
                trial()
                taken.append(clock() - start)
    least = {number: min(taken) for number, taken in seconds.items()}
    return Threads(min(least, key=lambda number: least[number]), least)


@contextmanager
def running_in(number: int) -> Iterator[None]:
    """Let torch take a number of threads, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _count(number: int) -> str:
    return f"{number} thread{'' if number == 1 else 's'}"
