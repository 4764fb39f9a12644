"""The filter-normalized plane of the literature, which rescaling fools."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin._streams import stream
from flatmin._types import Params
from flatmin.analysis.landscape import REACH, axis_of
from flatmin.analysis.subject import Subject, made_in, scalings_of
from flatmin.objective import Objective
from flatmin.record.progress import progress
from flatmin.scale import Filterwise
from flatmin.symmetry import rescale


def filter_direction(params: Params, generator: torch.Generator) -> dict[str, Tensor]:
    r"""Draw a random direction in which each filter is as long as the network's.

    .. math:: d_i \leftarrow \frac{d_i}{\|d_i\|} \|w_i\| \quad \text{for each filter } i

    Biases and the gains of normalization layers, which have no filters, stay where they are.

    Args:
        params: The point ``w``.
        generator: Where the parameters are.

    Returns:
        The direction.

    Example:
        >>> w = {"weight": torch.tensor([[3.0, 4.0], [0.0, 2.0]]), "bias": torch.ones(2)}
        >>> d = filter_direction(w, torch.Generator().manual_seed(0))
        >>> d["weight"].norm(dim=1).round(decimals=4).tolist(), d["bias"].tolist()
        ([5.0, 2.0], [0.0, 0.0])

    Source:
        Li et al. 2018, arXiv:1712.09913, section 4.
    """
    drawn = {n: torch.empty_like(t).normal_(generator=generator) for n, t in params.items()}
    lengths, own = Filterwise()(drawn), Filterwise()(params)
    return {
        name: d / lengths[name] * own[name] if d.ndim > 1 else torch.zeros_like(d)
        for name, d in drawn.items()
    }


def filter_plane(
    objective: Objective, params: Params, *, grid: int = 21, seed: int = 0
) -> dict[str, Any]:
    """Losses in a plane of two random filter-normalized directions, as plain values.

    Args:
        objective: The loss.
        params: The point ``w``, the middle.
        grid: Points on each axis, from -1 to 1.
        seed: Of the directions: the same numbers before they are normalized.

    Returns:
        Axes in lengths of the filters, and losses, None where they are not finite.

    Raises:
        ValueError: If the grid has fewer than two points.
    """
    if grid < 2:
        raise ValueError(f"grid must be at least 2, got {grid}.")
    generator = stream("filter plane", seed, device=next(iter(params.values())).device)
    first, second = (filter_direction(params, generator) for _ in range(2))
    axis = [x / REACH for x in axis_of(grid)]

    def at(x: float, y: float) -> float | None:
        point = tree.add(tree.add(params, first, alpha=x), second, alpha=y)
        value = objective.value(point).item()
        return value if math.isfinite(value) else None

    rows = [[at(x, y) for x in axis] for y in progress(axis, "filter plane")]
    return {"grid": axis, "plane": rows}


def filter_planes(subject: Subject, *, grid: int, seed: int) -> list[dict[str, Any]]:
    """The plane of a network, and that of a rescaled copy, which computes the same function.

    Args:
        subject: Network and data.
        grid: Points on each axis.
        seed: Of directions and factors.

    Returns:
        One plane, or two where it is known what may be rescaled.
    """
    with made_in(subject.dtype):
        objective = subject.objective()
        planes = [filter_plane(objective, objective.params, grid=grid, seed=seed)]
        scalings, _ = scalings_of(subject)
        if scalings is not None:
            twin = copy.deepcopy(subject.model)
            factors = scalings.sample(stream("rescaled copies", seed))
            rescale(twin, scalings, factors)
            other = subject.objective(twin)
            planes.append(filter_plane(other, other.params, grid=grid, seed=seed))
    return planes
