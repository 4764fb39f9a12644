"""Runs made on this machine: one after the other, or in processes that share it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from flatmin.compare.executor import Executor, Future
from flatmin.compare.job import Job
from flatmin.compare.work import is_finished


class Here:
    """Runs one after the other, in this process."""

    def submit(self, function: Callable[[Job], Any], job: Job, /) -> Future:
        """Give something that makes the run when it is asked for the result."""
        return _Lazy(function, job)


class _Lazy:
    def __init__(self, function: Callable[[Job], Any], job: Job) -> None:
        self.function, self.job = function, job

    def result(self) -> Any:
        return self.function(self.job)


@contextmanager
def processes(workers: int, device: str) -> Iterator[Callable[[], Executor]]:
    """Processes on this machine, which share its cores, or have a GPU each.

    Args:
        workers: How many.
        device: ``cuda`` gives each worker one of the GPUs; more than those share them.

    Yields:
        A function that starts them, and starts them anew where one has been killed.
    """
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    threads = max(1, _cores() // workers)
    context = multiprocessing.get_context("spawn")
    opened: list[ProcessPoolExecutor] = []

    def start() -> Executor:
        numbers = context.SimpleQueue()
        for number in range(workers):
            numbers.put(number)
        for old in opened:
            old.shutdown(wait=False, cancel_futures=True)
        opened.append(
            ProcessPoolExecutor(
                workers, context, initializer=_settle, initargs=(threads, numbers, gpus)
            )
        )
        for _ in range(workers):  # each begins with a call, and imports while a task is described
            opened[-1].submit(is_finished, None)
        return opened[-1]

    try:
        yield start
    except BaseException:
        for pool in opened:
            for process in list((getattr(pool, "_processes", None) or {}).values()):
                process.terminate()  # a run that is interrupted saves first
        raise
    finally:
        for pool in opened:
            pool.shutdown(cancel_futures=True)


def usual_workers(device: str) -> int:
    """One for each GPU, or for each core."""
    return max(1, torch.cuda.device_count()) if device == "cuda" else _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _settle(threads: int, numbers: Any, gpus: int) -> None:
    """Begin as a worker: with its threads and its GPU, and no longer than its parent."""
    torch.set_num_threads(threads)
    if gpus:
        number = numbers.get()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number % gpus]
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
