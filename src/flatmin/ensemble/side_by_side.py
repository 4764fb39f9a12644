"""Work on several stacks at once, one thread each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Apply a function to each item, in as many threads as torch may use.

    Each call computes with a single thread. Small tensors gain more from this than from cutting
    every operation in two, and the bits do not depend on the number of threads.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1)) as pool:
            return list(pool.map(function, items))
    finally:
        torch.set_num_threads(threads)
