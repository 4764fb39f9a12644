"""What a worker does, on this machine or another: one run, which is made once and kept."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch

from flatmin._ours import is_ours
from flatmin.compare.job import Job
from flatmin.compare.kept import kept
from flatmin.compare.loading import load_task
from flatmin.compare.looping import looped
from flatmin.compare.task import Task, told
from flatmin.compare.timing import timed
from flatmin.compare.training import trained

# Global random numbers, number of threads and default types belong to the process: of several
# threads of an executor one makes its run, and the others wait.
_ONE_AT_A_TIME = threading.Lock()


def work(job: Job) -> dict[str, Any]:
    """Make a run, or take what is kept of it; in one process one after the other.

    Args:
        job: The run.

    Returns:
        Its numbers; or ``refused``, a sentence about what the user's file or input lacks, which is
        not kept.

    Raises:
        OSError: If the disk is full or the like.
        MemoryError: Of the machine too.
        OutOfMemoryError: Of the device.
    """
    try:
        with _ONE_AT_A_TIME:
            return kept(job.file, lambda parts: _made(job, parts), is_finished)
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a stranger's network or loss can fail in any way
        if isinstance(error, ValueError | TypeError) and is_ours(error):
            return {"refused": " ".join(str(error).split())}
        return {"refused": f"{Path(job.task).name}, {job.words}: {told(error)}."}


def is_finished(numbers: Any) -> bool:
    """Whether these are the numbers of a finished run."""
    if not isinstance(numbers, dict) or not isinstance(numbers.get("commit"), str):
        return False
    return isinstance(numbers.get("diverged"), str) or "seconds" in numbers


def _made(job: Job, parts: Path) -> dict[str, Any]:
    task = load_task(job.task)
    if task.digest != job.digest:
        raise ValueError(
            f"{job.task} has changed while it was compared, or is another file on this machine (or "
            "a file beside it that it imports); start the comparison again."
        )
    if len(job.arms) > 1:
        return timed(task, job)
    return looped(task, job) if task.has_loop else _checked(task, job, parts)


def _checked(task: Task, job: Job, parts: Path) -> dict[str, Any]:
    if not task.cuts_by_seed and (found := task.data_key(0)) != job.data:
        raise ValueError(
            f"data() of {task.path.name} returned other data ({found[:8]}) to a worker than where "
            f"the comparison began ({job.data[:8]}); fix its seed, and its files on all machines."
        )
    return trained(task, job, parts)
