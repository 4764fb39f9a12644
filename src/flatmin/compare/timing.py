"""What an epoch of each arm costs, measured side by side before anything else is trained."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import torch

from flatmin.compare.job import Job
from flatmin.compare.looping import looped
from flatmin.compare.task import Task
from flatmin.compare.training import config_of, evaluated, train_on

_BATCHES, _ROUNDS = 10, 3


def timed(task: Task, job: Job) -> dict[str, Any]:
    """Seconds and gradients of an epoch of each arm, and of an evaluation of the held-out part.

    The arms take turns, so that all meet the same machine; medians over three rounds. A loop of
    one's own is called once before, for it may fill a cache or import something when it first runs.

    Args:
        task: What is trained.
        job: Has all arms.

    Returns:
        ``seconds`` of an epoch and ``gradients`` of a step by arm; seconds of an ``evaluation``.
    """
    if task.has_loop:
        _round(task, replace(job, arms=job.arms[:1]))
    rounds = [_round(task, job) for _ in range(_ROUNDS)]
    return {
        "seconds": {
            arm.name: statistics.median(found[arm.name][0] for found in rounds) for arm in job.arms
        },
        "gradients": {arm.name: rounds[0][arm.name][1] for arm in job.arms},
        "evaluation": 0.0 if task.has_loop else _evaluation(task, job),
    }


def _round(task: Task, job: Job) -> dict[str, tuple[float, float]]:
    found = {}
    for arm in job.arms:
        if task.has_loop:
            run = looped(task, replace(job, arms=(arm,), rho=arm.rho, final=True))
            if "diverged" in run:
                raise ValueError(f"run() of {task.path.name} with {arm.name}: {run['diverged']}.")
            found[arm.name] = run["seconds"], run["gradients"] / run["steps"]
            continue
        fit, held, _ = task.parts(job.seed)
        few = fit.subset(torch.arange(min(len(fit), _BATCHES * task.config.batch_size)))
        # The first epoch warms up: memory, and kernels for these shapes.
        config = replace(config_of(task, arm, job), epochs=2, evaluate_every=2)
        pair = few, held.subset(torch.arange(1))
        last = train_on(pair, task, job, config, arm).history[-1]
        found[arm.name] = last.seconds * len(fit) / len(few), last.gradients / last.step
    return found


def _evaluation(task: Task, job: Job) -> float:
    network = task.model(job.seed).to(job.device)
    held = task.parts(job.seed)[1]
    begin = time.perf_counter()
    evaluated(network, held, task, job, task.config)
    return time.perf_counter() - begin
