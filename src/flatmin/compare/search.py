"""A search in two steps: the base first, then the radius of what is around it; and its limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flatmin.compare.optimizers import OPTIMIZERS, flat
from flatmin.record.item import Table
from flatmin.record.progress import progress


def search(
    names: Sequence[str],
    grids: Mapping[str, Sequence[dict[str, Any]]],
    radii: Mapping[str, Sequence[float]],
    score: Callable[[dict[str, Any]], tuple[float, ...]],
) -> dict[str, Any]:
    """Choose among the settings of each base, then each radius on top of what was chosen for it.

    Args:
        names: Arms, those of ``OPTIMIZERS``; a base comes before what is around it.
        grids: What to try, by base optimizer.
        radii: What to try, by minimizer.
        score: Accuracy on held-out data, and what decides a tie; the larger the better.

    Returns:
        ``chosen``, what to train each arm with, and ``search``, every run that was looked at for
        it: ``optimizer``, ``lr``, ``decay``, ``rho``, validation ``accuracy``.
    """
    chosen: dict[str, dict[str, Any]] = {}
    tried: list[dict[str, Any]] = []
    for name in progress(names, "search: optimizers"):
        base, minimizer = OPTIMIZERS[name]
        grid = list(grids[base])
        if minimizer != "none":
            start = chosen["SGD" if base == "sgd" else "Adam"]
            grid = [{**start, "minimizer": minimizer, "rho": rho} for rho in radii[minimizer]]
        scores = [score(choice) for choice in progress(grid, f"search: {name}")]
        chosen[name] = grid[scores.index(max(scores))]
        for choice, (accuracy, *_) in zip(grid, scores, strict=True):
            tried.append({"optimizer": name, **flat(choice), "accuracy": accuracy})
    return {"chosen": chosen, "search": tried}


def search_table(record: dict[str, Any]) -> Table:
    """Every run of the search; what was chosen is marked."""
    numbers = record["numbers"]
    rows = []
    for kept in numbers["search"]:
        choice = numbers["chosen"][kept["optimizer"]]
        is_it = all(kept[key] == value for key, value in flat(choice).items())
        rows.append(
            [
                kept["optimizer"],
                kept["lr"],
                kept["decay"],
                kept["rho"],
                kept["accuracy"],
                "←" * is_it,
            ]
        )
    return Table(
        "The search: accuracy in % on the held-out images after "
        f"{record['config']['search_epochs'] or record['config']['epochs']} epochs",
        ("optimizer", "lr", "weight decay", "rho", "validation accuracy", "chosen"),
        rows,
    )


def at_edge(name: str, choice: dict[str, Any], numbers: dict[str, Any]) -> bool:
    """Whether a choice has no neighbour on one side; below the smallest radius lies the base."""
    for key, value in flat(choice).items():
        values = _tried(name, key, numbers)
        inside = len(values) < 3 or value == 0.0 or values[0] < value < values[-1]
        if not inside and not (key == "rho" and value == values[0]):
            return True
    return False


def least_radius(name: str, choice: dict[str, Any], numbers: dict[str, Any]) -> bool:
    """Whether the smallest radius of the search was chosen."""
    values = _tried(name, "rho", numbers)
    return len(values) > 1 and flat(choice)["rho"] == values[0]


def _tried(name: str, key: str, numbers: dict[str, Any]) -> list[float]:
    tried = [kept[key] for kept in numbers["search"] if kept["optimizer"] == name]
    return sorted({value for value in tried if value is not None})
