"""Trained networks, each rescaled again and again, and what every measure says of the copies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flatmin.experiments.scaling._rescaled_copies import (
    Measure,
    fooled_measures,
    invariant_measures,
    kendall,
    orbit_with_buffers,
    rescaled,
    spread_of,
    toy_network,
    wide_network,
)
from flatmin.record.progress import progress
from flatmin.record.store import once

DTYPES = {"float64": torch.float64, "float32": torch.float32}
MODES = {
    "eval": "running statistics, rescaled too",
    "train": "batch statistics, eps → 0",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Trained networks, each rescaled again and again: one orbit a network."""

    seeds: int = 24
    """Number of toy networks, each with its own start, points and factors."""
    scalings: int = 50
    """Scalings of all hidden units by U[0.5, 1.5], each on top of the one before."""
    every: int = 1
    """Every how many scalings the toy networks are measured."""
    epochs: int = 60
    """Steps of Adam on all points, from a random start."""
    points: int = 200
    """Points that are learnt and measured on, divisible by 4."""
    variance: float = 5.0
    """Variance of the points."""
    rho: float = 0.2
    """Radius of the ball, dimensionless."""
    sam_rho: float = 0.5
    """Radius for the losses of SAM and of published ASAM, as in figures 3 and 4."""
    steps: int = 10
    """Trial points of a climb to the worst case."""
    samples: int = 5
    """Random points of an average, random vectors of a trace; the same for all copies."""
    copies: int = 20
    """Independent orbits on which the ranking of the measures that are fooled is compared."""
    wide_seeds: int = 2
    """Number of WRN-10-1 on digits."""
    wide_scalings: int = 50
    """Their scalings."""
    wide_epochs: int = 3
    """Passes over the digits."""
    wide_examples: int = 16
    """Digits that are measured on."""

    def __post_init__(self) -> None:
        if self.scalings < 1 or self.scalings % self.every or self.wide_scalings < 1:
            raise ValueError(
                "scalings must be a multiple of every, and wide_scalings at least 1, got "
                f"{self.scalings}, {self.every} and {self.wide_scalings}."
            )


def measured(config: Config, scratch: Path) -> dict[str, Any]:
    """Spreads and rankings over all orbits; finished parts are kept in ``scratch``."""
    exact = invariant_measures(config.rho, steps=config.steps, samples=config.samples)
    fooled = fooled_measures(config.rho, config.sam_rho)
    values: dict[str, list[dict[str, list[float]]]] = {}
    for dtype in DTYPES:
        measures = exact | (fooled if dtype == "float64" else {})
        values[dtype] = [
            once(scratch / f"{dtype}-{seed}.json", lambda: _orbit(config, seed, dtype, measures))  # noqa: B023
            for seed in progress(range(config.seeds), f"ext_invariance: toy networks, {dtype}")
        ]
    copies = [
        once(scratch / f"copies-{seed}.json", lambda: _copies(config, seed, fooled))  # noqa: B023
        for seed in progress(range(config.seeds), "ext_invariance: copies")
    ]
    wide = [
        once(scratch / f"wide-{seed}.json", lambda: _wide(config, seed))  # noqa: B023
        for seed in progress(range(config.wide_seeds), "ext_invariance: WRN-10-1")
    ]
    double = values["float64"]
    return {
        "bounds": {name: {"float64": m.double, "float32": m.single} for name, m in exact.items()},
        "spreads": {
            dtype: {name: [spread_of(net[name]) for net in nets] for name in nets[0]}
            for dtype, nets in values.items()
        },
        "ratios": {
            name: [max(map(abs, net[name])) / min(map(abs, net[name])) for net in double]
            for name in fooled
        },
        "kendall": {
            name: [
                kendall([net[name][0] for net in double], [net[name][k] for net in double])
                for k in range(config.scalings // config.every + 1)
            ]
            for name in exact
        },
        "after": list(range(0, config.scalings + 1, config.every)),
        "marks": _marks(config),
        # [copies][marks]
        "kendall_fooled": {
            name: [
                [
                    kendall([net[name][0] for net in double], [net[name][c][k] for net in copies])
                    for k in range(len(_marks(config)))
                ]
                for c in range(config.copies)
            ]
            for name in fooled
        },
        "before_and_after": {
            name: [[net[name][0], net[name][-1]] for net in double]
            for name in ("SAM rise", "published ASAM rise", "worst case, p = 2")
        },
        "wide": wide,
    }


def _marks(config: Config) -> list[int]:
    """After how many scalings the ranking of independent copies is compared."""
    return [k for k in (1, 2, 5, 10, 20, 35) if k < config.scalings] + [config.scalings]


def _orbit(
    config: Config, seed: int, dtype: str, measures: dict[str, Measure]
) -> dict[str, list[float]]:
    objective = _network(config, seed, dtype)
    states = list(rescaled(objective, config.scalings, seed))[:: config.every]
    return {name: [m.of(objective, w) for w in states] for name, m in measures.items()}


def _copies(
    config: Config, seed: int, measures: dict[str, Measure]
) -> dict[str, list[list[float]]]:
    """Values on independent orbits, [copies][marks]."""
    objective = _network(config, seed, "float64")
    found: dict[str, list[list[float]]] = {name: [] for name in measures}
    for copy in range(config.copies):
        states = list(rescaled(objective, config.scalings, seed, copy))
        for name, m in measures.items():
            found[name].append([m.of(objective, states[k]) for k in _marks(config)])
    return found


def _network(config: Config, seed: int, dtype: str) -> Any:
    return toy_network(
        seed,
        steps=config.epochs,
        points=config.points,
        variance=config.variance,
        dtype=DTYPES[dtype],
    )


def _wide(config: Config, seed: int) -> dict[str, dict[str, Any]]:
    model, images, labels = wide_network(
        seed, epochs=config.wide_epochs, examples=config.wide_examples
    )
    measures = invariant_measures(
        config.rho,
        steps=config.steps // 2,
        samples=max(2, config.samples // 2),
        tolerance=1e-3,
    )
    measures["SAM rise"] = fooled_measures(config.rho, config.sam_rho / 10)["SAM rise"]
    found: dict[str, dict[str, Any]] = {}
    for mode in MODES:
        model.train(mode == "train")
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and mode == "train":
                module.eps = 1e-300  # torch asks for more than zero; no sum notices this
        values, moved = orbit_with_buffers(
            model, images, labels, measures, count=config.wide_scalings, seed=seed
        )
        found[mode] = {
            "spreads": {name: spread_of(column) for name, column in values.items()},
            "deviation": moved,
        }
    return found
