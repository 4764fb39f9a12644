"""Checkpoints of a training, in the plane in which they spread most."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from flatmin import _tree as tree
from flatmin._types import Params
from flatmin.analysis.subject import Subject, made_in
from flatmin.analysis.weights import fill
from flatmin.record.progress import progress

_SAME = 1e-20  # a square this small beside the first is rounding
_LEAST = 0.7  # the shorter axis, as a share of the longer
_ROOM = 0.25  # around the checkpoints, as a share of how far they spread


def trajectory(
    subject: Subject, states: Sequence[Mapping[str, Tensor]], *, grid: int = 21
) -> dict[str, Any]:
    r"""Project checkpoints on their first two principal components, with the loss of that plane.

    .. math:: w_k - w = a_k\, v_1 + b_k\, v_2 + r_k, \quad v_1, v_2 \text{ the first right singular
        vectors of the matrix with rows } w_k - w

    Centered at the network that was looked at, not at the mean, as in Li et al. 2018. In many
    dimensions the first component of a random walk explains most of it too (Antognini and
    Sohl-Dickstein 2018), so that a smooth arc is no finding.

    Args:
        subject: The network in the middle, w, with data; its buffers hold for the whole plane.
        states: State dicts of the checkpoints, in their order.
        grid: Points on each axis.

    Returns:
        Plain values: coordinates ``path`` of the checkpoints, in parameter units; their ``losses``
        with their own buffers; the share of the spread that both components explain; and the
        losses ``plane`` on ``x`` and ``y``.

    Raises:
        ValueError: If there are fewer than two checkpoints, or one is not of this network.

    Source:
        Li et al. 2018, arXiv:1712.09913, section 7.
    """
    if grid < 2:
        raise ValueError(f"grid must be at least 2, got {grid}.")
    if len(states) < 2:
        raise ValueError(f"a trajectory needs two checkpoints at least, got {len(states)}.")
    with made_in(subject.dtype):
        twin = copy.deepcopy(subject.model)
        points, losses = [], []
        for number, state in enumerate(progress(states, "checkpoints")):
            fill(twin, state, f"checkpoint {number} does not fit the network")
            objective = subject.objective(twin)
            points.append({name: t.detach().clone() for name, t in objective.params.items()})
            losses.append(objective.value(objective.params).item())
        objective = subject.objective()
        w = objective.params
        away = [tree.add(point, w, alpha=-1.0) for point in points]
        first, second, shares = _components(away)
        path = [[tree.dot(step, v).item() for v in (first, second)] for step in away]
        axes = _axes([[0.0, *(place[k] for place in path)] for k in (0, 1)], grid)

        def at(x: float, y: float) -> float | None:
            point = tree.add(tree.add(w, first, alpha=x), second, alpha=y)
            return _finite(objective.value(point).item())

        rows = [[at(x, y) for x in axes[0]] for y in progress(axes[1], "trajectory")]
    return {
        "path": path,
        "losses": [_finite(loss) for loss in losses],
        "explained": shares,
        "x": axes[0],
        "y": axes[1],
        "plane": rows,
    }


def _components(
    away: Sequence[Params],
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
    """The first two principal directions, orthonormal, and the shares of the squares in them.

    From the products of the steps with each other: no matrix of all parameters is made twice.

    Raises:
        ValueError: If they span no plane.
    """
    count = len(away)
    gram = np.array([[tree.dot(a, b).item() for b in away] for a in away])
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values[::-1], 0.0)
    if not values[0] > 0:
        raise ValueError("all checkpoints are the network itself, so there is no plane to draw.")
    directions = []
    for k in (0, 1):
        if values[k] <= _SAME * values[0]:
            raise ValueError(
                f"the {count} checkpoints lie on a line with the network, so they span no plane; "
                "give others, or draw plot_line."
            )
        total = tree.scale(away[0], 0.0)
        for step, share in zip(away, vectors[:, -1 - k], strict=True):
            total = tree.add(total, step, alpha=float(share) / math.sqrt(values[k]))
        directions.append(total)
    return directions[0], directions[1], (values[:2] / values.sum()).tolist()


def _axes(places: Sequence[Sequence[float]], grid: int) -> list[list[float]]:
    """Around all checkpoints, and neither axis much shorter than the other."""
    spans = [max(along) - min(along) for along in places]
    found = []
    for along, span in zip(places, spans, strict=True):
        half = max(span, _LEAST * max(spans)) * (0.5 + _ROOM)
        middle = (max(along) + min(along)) / 2
        found.append([float(x) for x in np.linspace(middle - half, middle + half, grid)])
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
