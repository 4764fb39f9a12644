"""The loss in the plane of the two sharpest directions of a ball."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from flatmin import _tree as tree
from flatmin._streams import stream
from flatmin._types import Params
from flatmin.analysis.landscape import Plane, axis_of, edge_of_ball, loss_at
from flatmin.ball import Ball
from flatmin.objective import EmpiricalLoss, Objective
from flatmin.record.progress import progress
from flatmin.sharpness import _operator as operator
from flatmin.sharpness._lanczos import lanczos

_TOLERANCE = 1e-6  # of an eigenvalue, relative to the first


def top_eigenvectors(
    objective: Objective, params: Params, ball: Ball, *, steps: int, generator: torch.Generator
) -> tuple[list[dict[str, torch.Tensor]], list[float], list[float]]:
    r"""Find the two largest eigenvalues of the scaled Hessian with their directions.

    .. math:: T_w H T_w\, u_k = \lambda_k u_k, \quad \lambda_1 \ge \lambda_2

    Args:
        objective: The loss.
        params: The point ``w``.
        ball: Its scale is ``T_w``.
        steps: Most Hessian-vector products.
        generator: Of the random start, on the device of ``params``.

    Returns:
        The directions, of 2-norm one, on the side where the loss rises; the eigenvalues; how far
        each is from one at most.

    Example:
        >>> from flatmin import FunctionObjective
        >>> curved = torch.tensor([1.0, 5.0, 3.0], dtype=torch.float64)
        >>> bowl = FunctionObjective(lambda w: (curved * w["x"] ** 2).sum() / 2)
        >>> w = {"x": torch.ones(3, dtype=torch.float64)}
        >>> made = top_eigenvectors(bowl, w, Ball(1.0), steps=9, generator=torch.Generator())
        >>> [round(value, 6) for value in made[1]], made[0][0]["x"].round(decimals=6).tolist()
        ([5.0, 3.0], [0.0, 1.0, 0.0])
    """
    dimension = sum(t.numel() for t in params.values())
    wanted = min(2, dimension)
    product = operator.ScaledHessian(objective, params, ball.scale)
    basis: list[torch.Tensor] = []

    def noted(vector: torch.Tensor) -> torch.Tensor:
        basis.append(vector)  # which the iteration keeps as it is
        return product(vector)

    values, vectors, residuals = np.empty(0), np.empty((0, 0)), np.empty(0)
    start = operator.gaussian(params, generator)
    for matrix, length in lanczos(
        noted, start, steps, fresh=lambda: operator.gaussian(params, generator)
    ):
        every, turned = np.linalg.eigh(matrix)
        values, vectors = every[::-1][:wanted], turned[:, ::-1][:, :wanted]
        residuals = np.abs(length * vectors[-1])
        if len(values) == wanted and residuals.max() <= _TOLERANCE * np.abs(every).max():
            break
    slope = ball.stretch(params, objective.value_and_grad(params)[1])
    directions = []
    for column in vectors.T:
        flat = sum(float(share) * part for share, part in zip(column, basis, strict=True))
        u = operator.unflatten(flat, params)  # type: ignore[arg-type]  # sum() of tensors
        directions.append(tree.scale(u, -1.0 if tree.dot(slope, u).item() < 0 else 1.0))
    return directions, values.tolist(), residuals.tolist()


def eigenplane(
    objective: EmpiricalLoss, ball: Ball, *, grid: int = 21, steps: int = 100, seed: int = 0
) -> dict[str, Any]:
    """Losses in the plane of the two sharpest directions, as plain values for a record.

    Directions that differ from a rescaled copy's by that rescaling alone, if the ball is
    invariant: the plane is the same.

    Args:
        objective: The loss; the network's own parameters are the middle.
        ball: The neighbourhood.
        grid: Points on each axis of the plane; lines have one more between any two.
        steps: Most Hessian-vector products.
        seed: Of the random start.

    Returns:
        Axes in units of rho, losses, None where they are not finite, and eigenvalues with how far
        they are from one at most.

    Raises:
        ValueError: If the network has a single parameter, or the grid fewer than two points.
    """
    w = objective.params
    if grid < 2:
        raise ValueError(f"grid must be at least 2, got {grid}.")
    if sum(t.numel() for t in w.values()) < 2:
        raise ValueError("a plane needs two parameters at least, got one.")
    generator = stream("eigenplane", seed, device=next(iter(w.values())).device)
    found, values, residuals = top_eigenvectors(
        objective, w, ball, steps=steps, generator=generator
    )
    # One of the axes ends at the edge of the ball, whatever the order of its norm.
    lengths = [tree.norm(u, ball.p).item() for u in found]
    first, second = (tree.scale(u, 1.0 / a) for u, a in zip(found, lengths, strict=True))
    plane = Plane(first, second, turns=False)
    line, axis = axis_of(2 * grid - 1), axis_of(grid)
    slope = ball.stretch(w, objective.value_and_grad(w)[1])

    def at(u: Params) -> float | None:
        value = loss_at(objective, w, ball, u)
        return value if math.isfinite(value) else None

    return {
        "loss": at(tree.scale(w, 0.0)),
        "eigenvalues": values,
        "residuals": residuals,
        "slopes": [ball.rho * tree.dot(slope, u).item() for u in (first, second)],
        "bends": [v * (ball.rho / a) ** 2 for v, a in zip(values, lengths, strict=True)],
        "line": line,
        "first": [at(plane.at(x, 0.0)) for x in line],
        "second": [at(plane.at(0.0, x)) for x in line],
        "grid": axis,
        "plane": [[at(plane.at(x, y)) for x in axis] for y in progress(axis, "eigenplane")],
        "edge": edge_of_ball(plane, ball.p),
    }
