"""Runs of several arms from the same starts, seed by seed, and what is left of them in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from flatmin.record.progress import progress

Arm = TypeVar("Arm")

_COLUMNS = ("last", "best", "best_epoch", "train", "running", "diverged")


def by_seed(
    run: Callable[[int, Arm], dict[str, Any]],
    arms: Mapping[str, Arm],
    seeds: int,
    description: str,
) -> dict[str, list[dict[str, Any]]]:
    """Run every arm from every start.

    Seeds are the outer loop, so that all arms meet the same state of the machine, and an
    interrupted study has whole seeds.

    Args:
        run: Trains an arm from the start of a seed.
        arms: What is trained, by name.
        seeds: Number of starts, each with its own batches; all arms share them.
        description: What the progress bar says.

    Returns:
        For each name, the runs by seed.
    """
    done: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    jobs = [(seed, name) for seed in range(seeds) for name in arms]
    for seed, name in progress(jobs, description):
        done[name].append(run(seed, arms[name]))
    return done


def ends(runs: Sequence[dict[str, Any]], epochs: int) -> dict[str, list[Any]]:
    """What is left of runs in a table: a list over seeds each, None where a run diverged.

    Args:
        runs: The runs of one optimizer, by seed.
        epochs: Look at them after so many epochs.

    Returns:
        ``last``, ``train`` and ``running`` accuracy after these epochs, in percent; the ``best``
        test accuracy until then, which is chosen on the test set, and its ``best_epoch``;
        ``diverged``, the reasons.
    """
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for run in runs:
        values: dict[str, Any] = dict.fromkeys(_COLUMNS)
        if "diverged" in run:
            values["diverged"] = run["diverged"]
        else:
            here = run["epochs"].index(epochs)
            test = run["test"][: here + 1]
            values |= {"last": test[here], "train": run["train"][here]}
            values |= {"running": run["running"][here], "best": max(test)}
            values["best_epoch"] = run["epochs"][test.index(max(test))]
        for name, column in columns.items():
            column.append(values[name])
    return columns


def commits(*groups: Mapping[str, Sequence[dict[str, Any]]]) -> list[str]:
    """The commits at which runs were made: an interrupted study may have been continued later."""
    return sorted({run["commit"] for group in groups for runs in group.values() for run in runs})
