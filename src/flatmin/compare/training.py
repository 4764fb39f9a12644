"""A run of a task with network and data: trained by flatmin, looked at when it is finished."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from flatmin.compare.arms import Arm
from flatmin.compare.averaged import averaged, averaged_epochs
from flatmin.compare.classes import has_classes
from flatmin.compare.finite import check_finite
from flatmin.compare.flatness import flatness
from flatmin.compare.job import Job
from flatmin.compare.task import Task
from flatmin.data import DataSet
from flatmin.train import Diverged, Epoch, TrainConfig, Trained, evaluate, train


def trained(task: Task, job: Job, checkpoints: Path) -> dict[str, Any]:
    """Train, and say how it went.

    Args:
        task: Gives network and data.
        job: What to train, and for how long.
        checkpoints: Where the run is continued, if it was interrupted.

    Returns:
        ``score``, metric and loss on the held-out part; ``epochs``, the ``held`` metric and
        the ``running`` one by epoch; ``steps``, the ``active`` ones of them, ``gradients``;
        ``lr_end``, the last learning rate over the highest; ``seconds`` of training. Of a final run
        also ``value``, the metric on the test part, and ``sharpness``. Or ``diverged``, the reason.
    """
    fit, held, test = task.parts(job.seed)
    config = config_of(task, job.arm, job)
    keep = averaged_epochs(job.epochs) if job.arm.average else 1
    try:
        run = train_on((fit, held), task, job, config, job.arm, out=checkpoints, keep=keep)
    except Diverged as error:
        check_finite(task, job.seed, job.device)
        return {"diverged": str(error).partition(";")[0]}
    history, network = run.history, run.model
    if job.arm.average:
        network = averaged(network, checkpoints, config, fit)
    value, loss = evaluated(network, held, task, job, config)
    if not math.isfinite(loss):
        check_finite(task, job.seed, job.device)
        return {"diverged": "The loss was not finite at the end"}
    check_metric(task, value)
    numbers: dict[str, Any] = {
        "score": [value, loss],
        "epochs": [epoch.epoch for epoch in history],
        "held": [_of(task, epoch, "test") for epoch in history],
        "running": [_of(task, epoch, "running") for epoch in history],
        "steps": history[-1].step,
        "active": history[-1].gradients - history[-1].step,
        "gradients": history[-1].gradients,
        "lr_end": history[-1].lr / config.lr,
        "seconds": round(math.fsum(epoch.seconds for epoch in history), 3),
    }
    if job.final:
        numbers["value"], loss = evaluated(network, test, task, job, config)
        if not math.isfinite(loss):  # an accuracy would be counted on
            check_finite(task, job.seed, job.device)
            return {"diverged": "The loss was not finite on the test part"}
        check_metric(task, numbers["value"])
        numbers["sharpness"] = flatness(network, fit, task.loss, job.device)
    return numbers


def config_of(task: Task, arm: Arm, job: Job) -> TrainConfig:
    """The task's configuration with what the job and its arm say."""
    wrapped = arm.minimizer != "none"
    return replace(
        task.config,
        minimizer=arm.minimizer,
        rho=(job.rho or arm.rho) if wrapped else None,
        when=arm.when,
        lr=job.lr or task.config.lr,
        epochs=job.epochs,
        warmup=min(task.config.warmup, job.epochs),
        validation=0,
        evaluate_train=0,
        evaluate_every=1,
        seed=job.seed,
    )


def train_on(
    data: tuple[DataSet, DataSet],
    task: Task,
    job: Job,
    config: TrainConfig,
    arm: Arm,
    *,
    out: Path | None = None,
    keep: int = 1,
) -> Trained:
    """Train a new network of the task."""
    return train(
        config,
        data,
        loss=task.loss,
        metric=task.metric,
        optimizer=task.own_arms[arm.name] if arm.own else None,
        model=task.model(job.seed),
        out=out,
        resume=out is not None,
        keep=keep,
        device=job.device,
    )


def evaluated(
    network: nn.Module, data: DataSet, task: Task, job: Job, config: TrainConfig
) -> tuple[float, float]:
    """The metric in the unit in which it is shown, and the loss."""
    loss, metric = evaluate(
        network, data.to(job.device), config=config, loss=task.loss, metric=task.metric
    )
    if task.metric is not None:
        return metric, loss
    return (100 * metric if has_classes(task) else loss), loss


def check_metric(task: Task, value: float) -> None:
    """Refuse a metric that is no number where the loss is one.

    Raises:
        ValueError: If it is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(
            f"metric of {task.path.name} must be finite, and gives {value} where the loss is "
            "finite; leave out of it what is not defined for every example."
        )


def _of(task: Task, epoch: Epoch, part: str) -> float | None:
    """What is reported of an epoch: the metric, or the accuracy in percent, or the loss."""
    metric: float | None = getattr(epoch, f"{part}_metric")
    if task.metric is not None:
        return metric
    accuracy: float | None = getattr(epoch, f"{part}_accuracy")
    if has_classes(task):
        return None if accuracy is None else round(100 * accuracy, 4)
    loss: float | None = getattr(epoch, f"{part}_loss")
    return loss
