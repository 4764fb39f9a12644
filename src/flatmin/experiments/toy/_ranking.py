"""What sharpness says of the networks of a grid: who lies flatter, and who generalizes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from flatmin.experiments.toy._beside import NAMES, NEAR, beside_adam
from flatmin.experiments.toy._flatness import MEASURES, SCALES
from flatmin.experiments.toy._grid import AXES, Config
from flatmin.experiments.toy._kendall import Signs, Tau, tau_along
from flatmin.experiments.toy._scored import COPY, ERROR, GAP, LOSS, MOVED, SHARE, SIZE, TRAIN
from flatmin.record.progress import progress

TARGETS = (LOSS, ERROR, GAP)
OTHERS = (TRAIN, SIZE)  # what a measure of sharpness should beat
ALL, SAME, GIVEN, ALIVE, COPIES = (
    "all pairs",
    "same variance",
    "same variance, given the training loss",
    "same variance, without networks that predict one class",
    "same variance, rescaled copies",
)
EQUAL = f"same draw, training losses within {NEAR:g} nats"
_VARIANCE, _DRAW = AXES.index("variance"), AXES.index("draw")


def ranked(config: Config, values: dict[str, Tensor]) -> dict[str, Any]:
    """All numbers of the record, from the scores of all networks."""
    alive = _one_stratum(values[SHARE] < 1, by_variance=True)
    targets = {name: _Target(values, name, alive) for name in (*TARGETS, TRAIN)}
    tau: dict[str, dict[str, dict[str, Any]]] = {
        scope: {target: {} for target in TARGETS}
        for scope in (ALL, SAME, GIVEN, EQUAL, ALIVE, COPIES)
    }
    near = _equally_trained(values)
    kept = {}
    for name in progress((*NAMES, *OTHERS), "ext_prediction: rankings"):
        found = _Target(values, name, alive)
        given = {target: found.same.tau(targets[target].same) for target in (*TARGETS, TRAIN)}
        for target in TARGETS:
            tau[ALL][target][name] = _plain(found.every.tau(targets[target].every))
            tau[SAME][target][name] = _plain(given[target])
            tau[ALIVE][target][name] = _plain(found.alive.tau(targets[target].alive))
            one, other = _by_draw(values[name]), _by_draw(values[target])
            tau[EQUAL][target][name] = _plain(tau_along(one, other, near))
            if name != TRAIN:
                of_target = targets[target].same.tau(targets[TRAIN].same)
                tau[GIVEN][target][name] = _plain(given[target].given(given[TRAIN], of_target))
        if name in NAMES:
            copy = Signs(_one_stratum(values[COPY + name], by_variance=True))
            kept[name] = _plain(found.same.tau(copy))
            for target in TARGETS:
                tau[COPIES][target][name] = _plain(copy.tau(targets[target].same))
    return {
        "networks": math.prod(config.shape),
        "equally trained": near.double().mean().item(),
        "moved": values[MOVED].max().item(),
        "tau": tau,
        "kept": kept,
        "rounding": {name: _rounding(values, name) for name in NAMES},
        "axes": {axis: _along(values, axis) for axis in AXES},
        "ways": beside_adam(config, values),
        "shown": _shown(config, values),
    }


class _Target:
    """Signs of one score: over all pairs, those of one variance, and of them the living."""

    def __init__(self, values: dict[str, Tensor], name: str, alive: Tensor) -> None:
        self.every = Signs(_one_stratum(values[name], by_variance=False))
        same = _one_stratum(values[name], by_variance=True)
        self.same, self.alive = Signs(same), Signs(same, alive)


def _one_stratum(values: Tensor, *, by_variance: bool) -> Tensor:
    """``[variances or 1, draws, networks]``."""
    lead = values.movedim((_VARIANCE, _DRAW), (0, 1)).flatten(2)
    return lead if by_variance else lead.movedim(1, 0).flatten(1)[None]


def _by_draw(values: Tensor) -> Tensor:
    """``[draws, variances, networks]``."""
    return values.movedim((_DRAW, _VARIANCE), (0, 1)).flatten(2)


def _equally_trained(values: dict[str, Tensor]) -> Tensor:
    """Pairs of living networks of a draw that have nearly the same training loss."""
    loss, alive = _by_draw(values[TRAIN]), _by_draw(values[SHARE]) < 1
    near = (loss[..., :, None] - loss[..., None, :]).abs() <= NEAR
    near &= ~torch.eye(loss.shape[-1], dtype=torch.bool)
    return near & alive[..., :, None] & alive[..., None, :]


def _along(values: dict[str, Tensor], axis: str) -> dict[str, dict[str, Any]]:
    """τ over pairs that differ along one axis only."""

    def tau(one: Tensor, other: Tensor) -> Tau:
        if axis == "draw":  # pairs of two draws, alike in all else
            first, second = (t.flatten(0, -2)[..., None] for t in (one, other))
            return Signs(first).tau(Signs(second))
        number = AXES.index(axis)
        first, second = (t.movedim((_DRAW, number), (0, -1)).flatten(1, -2) for t in (one, other))
        return tau_along(first, second)

    return {
        target: {name: _plain(tau(values[name], values[target])) for name in (*NAMES, *OTHERS)}
        for target in TARGETS
    }


def _rounding(values: dict[str, Tensor], name: str) -> float:
    """Largest difference between a network and its copy, over the median size."""
    one, copy = values[name], values[COPY + name]
    return ((one - copy).abs().max() / one.abs().median()).item()


def _shown(config: Config, values: dict[str, Tensor]) -> dict[str, Any]:
    """Some networks for a picture: those of two draws at the middle variance."""
    middle = len(config.variances) // 2
    names = [LOSS, TRAIN, *(f"{MEASURES[1]} | {scale}" for scale in SCALES)]
    cut = {n: values[n].select(_VARIANCE, middle)[..., :2].movedim(2, 0).flatten(1) for n in names}
    return {
        "variance": config.variances[middle],
        "values": {
            way: {n: [float(f"{v:.4g}") for v in t[k].tolist()] for n, t in cut.items()}
            for k, way in enumerate(config.ways)
        },
    }


def _plain(tau: Tau) -> list[float]:
    """Value and half-width, short enough to store by the hundred."""
    return [round(number, 4) for number in tau.estimate]
