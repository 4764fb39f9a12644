"""Where runs are made: whatever has ``submit`` and gives something with ``result``."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any, Protocol

from flatmin.compare.job import Job
from flatmin.compare.work import is_finished, work
from flatmin.record.files import read_json
from flatmin.record.progress import meter
from flatmin.train import Interrupted

_ROUNDS_WITHOUT_A_RUN = 3
_TERMINATED = 128 + signal.SIGTERM


class Future(Protocol):
    """What ``submit`` returns: a pool's future, a job of submitit, a future of dask."""

    def result(self) -> Any:
        """Wait, and give what the function returned, or raise what it raised."""


class Executor(Protocol):
    """Anything that calls a function somewhere."""

    def submit(self, function: Callable[[Job], Any], job: Job, /) -> Future:
        """Begin, and return at once."""


class WorkerLost(RuntimeError):
    """Workers end again and again before a run is finished."""


class Crew(Protocol):
    """Whoever sees to it that runs are made."""

    def expect(self, costs: float) -> None:
        """Hear what is to come, in all; see :func:`cost`."""

    def __call__(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Give the numbers of each run."""


class NotYet(Exception):
    """Runs are missing, and nobody is to make them now.

    Attributes:
        jobs: The runs.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__(f"{len(jobs)} runs are missing")
        self.jobs = tuple(jobs)


class Lister:
    """A crew that makes nothing: it takes what is kept, and names the rest by ``NotYet``."""

    def expect(self, costs: float) -> None:
        """Hear what is to come."""

    def __call__(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Give the numbers of runs that are all finished."""
        found = {job.key: read_json(job.file) for job in jobs}
        missing = {job.key: job for job in jobs if not is_finished(found[job.key])}
        if missing:
            raise NotYet(list(missing.values()))
        return [found[job.key] for job in jobs]


class Pool:
    """A crew on an executor; it shows how far we are.

    A run whose worker is lost is submitted again, and goes on where it was.

    Args:
        open_executor: Gives the executor; asked again when that one has broken.
        description: What the progress bar says.
    """

    def __init__(self, open_executor: Callable[[], Executor], description: str) -> None:
        self._open, self._description = open_executor, description
        self._executor = open_executor()
        self._show: Callable[[float], object] = lambda done: None

    def expect(self, costs: float) -> None:
        """Begin a progress bar."""
        self._show = meter(costs, self._description)

    def __call__(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Make the runs, or take what is kept of them.

        Raises:
            ValueError: If a run was refused.
            WorkerLost: If runs end without a result again and again.
            Interrupted: If this process was asked to end in the middle of one.
        """
        done: dict[str, dict[str, Any]] = {}
        todo = {job.key: job for job in jobs}
        fruitless = 0
        while todo:
            before = len(done)
            trouble = self._round(todo, done)
            todo = {key: job for key, job in todo.items() if key not in done}
            fruitless = 0 if len(done) > before else fruitless + 1
            if todo and fruitless == _ROUNDS_WITHOUT_A_RUN:
                job = next(iter(todo.values()))
                raise WorkerLost(
                    f"{len(todo)} runs ({job.words}, …) ended {fruitless} times without a result, "
                    f"the last with {type(trouble).__name__}: {trouble}. What is finished is kept."
                ) from trouble
            if isinstance(trouble, BrokenExecutor):
                self._executor = self._open()
        return [done[job.key] for job in jobs]

    def _round(
        self, todo: Mapping[str, Job], done: dict[str, dict[str, Any]]
    ) -> BaseException | None:
        """Submit all and wait for all; give what the last lost worker died of."""
        trouble: BaseException | None = None
        # The longest first, or a worker would be left with one of them when all others are done.
        longest = sorted(todo.values(), key=cost, reverse=True)
        try:
            futures = [(job, self._executor.submit(work, job)) for job in longest]
        except BrokenExecutor as error:
            return error
        for job, future in futures:
            try:
                numbers = future.result()
            except Interrupted as error:
                if error.code != _TERMINATED or error.process == os.getpid():
                    raise
                trouble = error  # a worker was asked to end, and not we
                continue
            except Exception as error:  # whatever a worker, or an executor, died of
                trouble = error
                continue
            if "refused" in numbers:
                for _, other in futures:
                    getattr(other, "cancel", bool)()
                raise ValueError(numbers["refused"])
            done[job.key] = numbers
            self._show(cost(job))
        return trouble


def cost(job: Job) -> float:
    """Roughly, in epochs of the base."""
    if len(job.arms) > 1:
        return float(len(job.arms))
    return job.epochs * (1.0 if job.arm.minimizer == "none" else 1.0 + job.arm.part)
