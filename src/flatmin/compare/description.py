"""A task tried before anything is trained: whether it can be repeated, and what it is."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from flatmin._ours import is_ours
from flatmin.compare.classes import has_classes
from flatmin.compare.task import Task, told
from flatmin.compare.training import check_metric
from flatmin.data._nested import digest as digest_of
from flatmin.data._nested import sha256
from flatmin.train import evaluate

_FEW = 64


def describe(task: Task) -> dict[str, Any]:
    """Try a task, and say what it is.

    Args:
        task: As read from its file.

    Returns:
        ``key``, a text that is another one for another task; ``data``, one for their data; which
        metric is ``better``; ``overlap`` of the splits of the seeds. Of a network also ``metric``
        and its ``unit``; how the ``base`` is trained; ``source`` and number of ``examples`` that
        are trained on, held out and tested on; ``parameters``.

    Raises:
        ValueError: If data or network are other ones at the second call, or do not fit together,
            or the test set is the training set.
    """
    if task.has_loop:
        return {"key": task.digest, "data": "", "better": task.better, "overlap": 0.0}
    key = task.data_key(0)
    task.forget()
    if task.data_key(0) != key:
        raise ValueError(
            f"data() of {task.path.name} returned other data when it was called again; fix its "
            "seed, so that all arms are trained on the same."
        )
    _check_sets(task)
    network = _check_network(task)
    fit, held, test = task.parts(0)
    few = fit.subset(torch.arange(min(_FEW, len(fit))))
    try:
        _, metric = evaluate(network, few, config=task.config, loss=task.loss, metric=task.metric)
        classes = has_classes(task)
    except Exception as error:  # a stranger's network or loss can fail in any way
        if isinstance(error, ValueError | TypeError) and is_ours(error):
            raise ValueError(f"{task.path.name}: {error}") from error
        raise ValueError(
            f"model() of {task.path.name} does not take its data: {told(error)}."
        ) from error
    has_metric = task.metric is not None or classes
    if task.metric is not None:
        check_metric(task, metric)
        named = {"metric": getattr(task.metric, "__name__", "metric"), "unit": ""}
    else:
        named = {"metric": "accuracy" if has_metric else "loss"}
        named["unit"] = "points" if has_metric else ""
    usual = "larger" if has_metric else "smaller"
    if task.metric is None and task.better not in (None, usual):
        raise ValueError(
            f"{task.path.name} has no metric, so that the {named['metric']} is compared, of which "
            f"the {usual} is better, and better is {task.better!r}; define metric, or leave better "
            "out."
        )
    better = task.better or usual
    whole = hashlib.sha256(repr((task.digest, key, _state(network))).encode())
    return {
        "key": whole.hexdigest()[:16],
        "data": "" if task.cuts_by_seed else key,
        **named,
        "better": better,
        "base": _base(task),
        "source": fit.source,
        "examples": {"trained on": len(fit), "held out": len(held), "tested on": len(test)},
        "parameters": sum(p.numel() for p in network.parameters()),
        "overlap": len(test) / len(fit) if task.cuts_by_seed else 0.0,
    }


def _base(task: Task) -> dict[str, Any]:
    """How the base is trained, as the file says or leaves it at what is usual."""
    config = task.config
    names = ("optimizer", "batch_size", "schedule", "warmup", "label_smoothing", "precision")
    loss = getattr(task.loss, "__name__", type(task.loss).__name__)
    return {
        "loss": "cross-entropy" if task.loss is None else loss,
        **{name: getattr(config, name) for name in names},
        **{str(name): str(value) for name, value in config.options.items()},
    }


def _check_sets(task: Task) -> None:
    """Refuse a test set that is the training set, and splits that no seed changes."""
    train, test = task.whole(0)
    if len(train) == len(test) and train.fingerprint() == test.fingerprint():
        raise ValueError(
            f"data() of {task.path.name} returned the same examples to train on and to test on; "
            "return others to test on, or the training set alone, of which a part is then held out."
        )
    if task.cuts_by_seed and task.data_key(1) == task.data_key(0):
        raise ValueError(
            f"data(seed) of {task.path.name} returned the same for the seeds 0 and 1; cut the data "
            "by the seed, or define data() without one."
        )


def _check_network(task: Task) -> nn.Module:
    one, other = task.model(0), task.model(0)
    tensors = {t.data_ptr() for t in one.state_dict().values() if _has_memory(t)}
    if one is other or any(
        t.data_ptr() in tensors for t in other.state_dict().values() if _has_memory(t)
    ):
        raise ValueError(
            f"model() of {task.path.name} returned the same network, or the same weights, when it "
            "was called again; build a new one at each call."
        )
    if _state(one) != _state(other):
        raise ValueError(
            f"model() of {task.path.name} returned another network for the same seed; draw its "
            "start from the global generators of torch, numpy or Python, which are seeded for it."
        )
    return other


def _has_memory(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() > 0


def _state(network: nn.Module) -> str:
    found = sha256()
    for name, value in network.state_dict().items():
        found.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest_of(found, value)
    return str(found.hexdigest())
