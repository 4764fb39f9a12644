"""What a checkpoint must agree on with the run that continues it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.data import DataSet, ImageSet
from flatmin.train._moved import MOVED
from flatmin.train._own_network import switches
from flatmin.train.config import TrainConfig
from flatmin.train.goal import Goal, name_of
from flatmin.train.optimizers import OwnOptimizer

# Raised whenever older checkpoints can no longer be continued bit for bit.
FORMAT = 2


def fingerprint(
    config: TrainConfig,
    data: tuple[DataSet, DataSet],
    network: nn.Module,
    goal: Goal,
    processes: int,
    optimizer: OwnOptimizer | None = None,
) -> dict[str, Any]:
    """Describe a run by plain values.

    Args:
        config: The configuration.
        data: Training and test set.
        network: The bare network, before it is spread over processes.
        goal: Loss and metric.
        processes: How many train together.
        optimizer: What makes the optimizer, where that is not the configuration's.

    Returns:
        A dictionary that goes into every checkpoint of the run.
    """
    return {
        "format": FORMAT,
        "torch": str(torch.__version__),
        "config": plain(config),
        "settings": data[0].settings(),
        "network": {
            # What a module keeps beside its tensors may change its shape in training.
            name: list(value.shape) if isinstance(value, Tensor) and not _is_extra(name) else None
            for name, value in network.state_dict().items()
        },
        "frozen": switches(network)["frozen"],
        "classes": list(data[0].classes) if isinstance(data[0], ImageSet) else [],
        **goal.describe(),
        "optimizer": name_of(optimizer),
        "data": [part.fingerprint() for part in data],
        "processes": processes,
    }


def plain(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain values, as in a log or checkpoint."""
    values = dataclasses.asdict(config)
    values = {name: value for name, value in values.items() if name not in MOVED}
    return {**values, "options": dict(values["options"])}


def described(config: TrainConfig, train_set: DataSet) -> dict[str, Any]:
    """The configuration and how examples are varied, as plain values."""
    return {**plain(config), **train_set.settings()}


def check_same(saved: Any, own: dict[str, Any], path: Path) -> None:
    """Refuse a checkpoint that another run wrote.

    Args:
        saved: Fingerprint in the checkpoint.
        own: Fingerprint of this run.
        path: The checkpoint, for the message.

    Raises:
        ValueError: Naming what differs, and the remedy.
    """
    if not isinstance(saved, dict) or saved.get("format") != own["format"]:
        version = saved.get("format") if isinstance(saved, dict) else None
        raise ValueError(
            f"{path} has format {version}, and this version of flatmin reads {own['format']}; "
            "resume with the version that wrote it, or start in another folder."
        )
    # Crops and flips were once fields of the configuration, and are settings of the data.
    then = saved.get("settings", {name: saved["config"].get(name) for name in own["settings"]})
    once = {} if "settings" in saved else own["settings"]
    kept = {name: value for name, value in saved["config"].items() if name not in once}
    before = {**plain(TrainConfig()), **kept}  # a field that came later was as it is by default
    pairs = [(before, own["config"]), (then, own["settings"])]
    differing = [
        f"{name} was {was.get(name)!r} and is {now.get(name)!r}"
        for was, now in pairs
        for name in {**was, **now}
        if was.get(name) != now.get(name)
    ]
    if differing:
        raise ValueError(
            f"{path} belongs to another run: {', '.join(differing)}; resume with its "
            "configuration, or start in another folder."
        )
    for name in ("loss", "metric", "optimizer"):
        if saved.get(name) != own[name]:
            raise ValueError(
                f"{path} belongs to another run: {name} was {saved.get(name) or 'the usual one'} "
                f"and is {own[name] or 'the usual one'}; resume with its {name}, or start in "
                "another folder."
            )
    if saved["classes"] != own["classes"]:
        raise ValueError(
            f"{path} was trained on {len(saved['classes'])} classes ({_few(saved['classes'])}), "
            f"and the data have {len(own['classes'])} ({_few(own['classes'])}); name the data set "
            "it was trained on, or start in another folder."
        )
    if saved["network"] != own["network"]:
        raise ValueError(
            f"{path} holds a network with other parameters than this one; resume with the network "
            "that it was trained from, or start in another folder."
        )
    if saved["frozen"] != own["frozen"]:
        raise ValueError(
            f"{path} was trained with other frozen parameters ({_few(saved['frozen']) or 'none'}) "
            f"than these ({_few(own['frozen']) or 'none'}); resume as it began, or start in "
            "another folder."
        )
    if saved["data"] != own["data"]:
        raise ValueError(
            f"{path} was trained on other data than these; name the data set it was trained on, "
            "or start in another folder."
        )
    if saved["processes"] != own["processes"]:
        raise ValueError(
            f"{path} was written by {saved['processes']} processes, and these are "
            f"{own['processes']}; resume with --nproc-per-node {saved['processes']}, or start in "
            "another folder."
        )


def _is_extra(name: str) -> bool:
    return name.rpartition(".")[2] == "_extra_state"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
