"""A run of a task that has a training loop of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from numbers import Real
from typing import Any

from torch import Tensor

from flatmin.compare.job import Job
from flatmin.compare.setting import Setting
from flatmin.compare.task import Task

VALIDATION = "validation"


def looped(task: Task, job: Job) -> dict[str, Any]:
    """Call ``run(arm, seed, budget)``, and hold it to what it promises.

    Args:
        task: Has the loop.
        job: What it is called with; the budget is the number of epochs.

    Returns:
        ``score`` on what is held out, ``value`` and the name of the ``metric``; ``steps``, the
        ``active`` ones among them, ``gradients``, ``lr_end``, ``seconds``. Or ``diverged``.

    Raises:
        ValueError: If it returned no number, never asked for the optimizer, or never let it
            perturb.
    """
    arm = job.arm
    setting = Setting(
        arm,
        lr=job.lr,
        rho=job.rho,
        device=job.device,
        own=task.own_arms[arm.name] if arm.own else None,
    )
    begin = time.perf_counter()
    found = task.call("run", setting, job.seed, job.epochs)
    seconds = time.perf_counter() - begin
    name = task.path.name
    numbers = _numbers(found)
    if numbers is None:
        raise ValueError(
            f"run() of {name} must return a mapping from the metric's name to a number, got "
            f"{found!r:.100}."
        )
    found = numbers
    metrics = [key for key in found if key != VALIDATION]
    if len(metrics) != 1:
        raise ValueError(
            f"run() of {name} must return one metric, and beside it {VALIDATION!r} to choose by, "
            f"got {', '.join(map(repr, found)) or 'nothing'}."
        )
    if not job.final and VALIDATION not in found:
        raise ValueError(
            f"run() of {name} must return {VALIDATION!r} beside its metric, by which learning "
            "rate and radius are chosen; or give --trials 1, which takes both as they are."
        )
    if not setting.wrapped:
        raise ValueError(
            f"run() of {name} never called arm.wrap(optimizer), so that all arms would be the "
            "same; train with the optimizer that it returns."
        )
    if not setting.steps:
        raise ValueError(
            f"run() of {name} never stepped the optimizer that arm.wrap returned; train with it."
        )
    if arm.minimizer != "none" and not setting.active:
        raise ValueError(
            f"run() of {name} made {setting.steps:,} steps with {arm.name} and perturbed in none, "
            "so that it would be the base; give step() a closure, or make a second pass in `with "
            "optimizer.perturbed():`."
        )
    if not all(map(math.isfinite, found.values())):
        return {"diverged": f"{metrics[0]} was not finite"}
    _, highest, last = setting.lrs or (0.0, 0.0, 0.0)
    return {
        "score": [float(found.get(VALIDATION, 0.0)), 0.0],
        "value": float(found[metrics[0]]),
        "metric": metrics[0],
        "steps": setting.steps,
        "active": setting.active,
        "gradients": setting.gradients,
        "lr_end": last / highest if highest else 0.0,
        "seconds": round(seconds, 6),
    }


def _numbers(found: Any) -> dict[str, float] | None:
    """What was returned as plain numbers; None where something else was."""
    if not isinstance(found, Mapping):
        return None
    numbers: dict[str, float] = {}
    for name, value in found.items():
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if not isinstance(name, str) or not isinstance(value, Real):
            return None
        numbers[name] = float(value)
    return numbers
