"""The loss along and around the steepest direction of a ball, on axes in units of rho."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin._streams import stream
from flatmin._types import Params
from flatmin.analysis.subject import Subject, made_in
from flatmin.ball import Ball
from flatmin.objective import EmpiricalLoss, Objective
from flatmin.record.progress import progress

REACH = 2.0  # the axes go from minus to plus this many times rho
_SAME = 1e-6  # a direction with less than this part across another does not turn from it


@dataclass(frozen=True, slots=True)
class Plane:
    """A plane through a network, in the coordinates u in which the ball is round.

    Attributes:
        first: Direction of p-norm one; x = 1 is the edge of the ball.
        second: Another, orthogonal to it.
        turns: Whether ``second`` is where a climb turns; else it is random.
    """

    first: Params
    second: Params
    turns: bool

    def at(self, x: float, y: float) -> dict[str, Tensor]:
        """Give ``x u₁ + y u₂``."""
        return {name: x * t + y * self.second[name] for name, t in self.first.items()}


def climbing_plane(
    objective: Objective, params: Params, ball: Ball, generator: torch.Generator
) -> Plane:
    r"""Span a plane by the steepest direction at the network and the one at the edge of the ball.

    .. math:: u_1 = s(0), \quad
        u_2 \propto z - \frac{\langle z, u_1 \rangle}{\langle u_1, u_1 \rangle} u_1, \quad
        z = s(u_1), \quad s(v) = \arg\max_{\|u\|_p \le 1} \langle T_w \nabla L(w + \rho T_w v), u
        \rangle

    A climb to the worst point of the ball begins along the first axis and turns towards the
    second. A network and its rescaled copy are the same point in these coordinates, and have the
    same plane. Costs two gradients.

    Args:
        objective: The loss.
        params: The point ``w``.
        ball: The neighbourhood.
        generator: Source of a random direction, on the device of ``params``, which takes the place
            of one that does not exist: where a gradient is zero or not finite, or does not turn.

    Returns:
        The plane.

    Example:
        ``x²/2 + y`` at (1, 0) is steepest along the diagonal; further out, x is steeper.

        >>> from flatmin import FunctionObjective
        >>> slope = FunctionObjective(lambda w: w["x"][0] ** 2 / 2 + w["x"][1])
        >>> w, generator = {"x": torch.tensor([1.0, 0.0])}, torch.Generator().manual_seed(0)
        >>> plane = climbing_plane(slope, w, Ball(0.5), generator)
        >>> [round(u, 4) for u in plane.first["x"].tolist() + plane.second["x"].tolist()]
        [0.7071, 0.7071, 0.7071, -0.7071]
    """
    first = _steepest(objective, params, ball, tree.scale(params, 0.0))
    if first is None:
        first = _unit(_random(params, generator), ball.p)
    turned = _steepest(objective, params, ball, first)
    second = None if turned is None else _across(turned, first, ball.p)
    if second is not None:
        return Plane(first, second, turns=True)
    second = _across(_random(params, generator), first, ball.p)
    # With a single parameter there is nothing across.
    return Plane(first, tree.scale(first, 0.0) if second is None else second, turns=False)


def loss_at(objective: Objective, params: Params, ball: Ball, u: Params) -> float:
    r"""Loss at a point of the ball, or beyond it.

    .. math:: L(w + \rho\, T_w u)

    Args:
        objective: The loss.
        params: The point ``w``.
        ball: The neighbourhood.
        u: Where, in the coordinates in which the ball is round and of radius one.

    Returns:
        The loss; it need not be finite.

    Example:
        >>> from flatmin import FunctionObjective
        >>> bowl = FunctionObjective(lambda w: w["x"].square().sum())
        >>> w, u = {"x": torch.tensor([1.0, 0.0])}, {"x": torch.tensor([2.0, 1.0])}
        >>> loss_at(bowl, w, Ball(0.5), u)  # (1 + 1)² + 0.5²
        4.25
    """
    return objective.value(_moved(params, ball, u)).item()


def edge_of_ball(plane: Plane, p: float, count: int = 90) -> list[tuple[float, float]]:
    """Where the plane cuts the edge of the ball: a circle for p = 2.

    Args:
        plane: The plane.
        p: Order of the ball's norm.
        count: Points, at equal angles; the first is repeated at the end.

    Returns:
        Coordinates in the plane.

    Example:
        >>> w = {"x": torch.tensor([1.0, 0.0])}, {"x": torch.tensor([0.0, 1.0])}
        >>> box = edge_of_ball(Plane(*w, turns=True), math.inf, count=8)
        >>> [(round(x, 4), round(y, 4)) for x, y in box[:3]]
        [(1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    """
    found = []
    for k in range(count + 1):
        x, y = math.cos(2 * math.pi * k / count), math.sin(2 * math.pi * k / count)
        length = tree.norm(plane.at(x, y), p).item()
        found.append((x / length, y / length) if length else (math.nan, math.nan))
    return found


def landscape(objective: EmpiricalLoss, ball: Ball, *, grid: int, seed: int) -> dict[str, Any]:
    """Losses of a network on lines and on a grid through it, as plain values for a record.

    Args:
        objective: The loss; the network's own parameters are the middle.
        ball: The neighbourhood.
        grid: Points on each axis of the grid; lines have one more between any two.
        seed: Of the random direction.

    Returns:
        Axes in units of rho, and losses, None where they are not finite.
    """
    w = objective.params
    generator = stream("landscape", seed, device=next(iter(w.values())).device)
    plane = climbing_plane(objective, w, ball, generator)
    chance = _unit(_random(w, generator), ball.p)
    axis, line = axis_of(grid), axis_of(2 * grid - 1)

    def at(u: Params) -> float | None:
        value = loss_at(objective, w, ball, u)
        return value if math.isfinite(value) else None

    return {
        "loss": at(tree.scale(w, 0.0)),
        "turns": plane.turns,
        "line": line,
        "first": [at(plane.at(x, 0.0)) for x in line],
        "second": [at(plane.at(0.0, x)) for x in line],
        "random": [at(tree.scale(chance, x)) for x in line],
        "grid": axis,
        "plane": [[at(plane.at(x, y)) for x in axis] for y in progress(axis, "landscape")],
        "edge": edge_of_ball(plane, ball.p),
    }


def landscape_of(subject: Subject, ball: Ball, grid: int, seed: int) -> dict[str, Any]:
    """The landscape of a network that was brought together with its data."""
    with made_in(subject.dtype):
        return landscape(subject.objective(), ball, grid=grid, seed=seed)


def axis_of(count: int) -> list[float]:
    """Points from minus to plus ``REACH``, in units of rho."""
    return [REACH * (2 * k / (count - 1) - 1) for k in range(count)]


def _moved(params: Params, ball: Ball, u: Params) -> dict[str, Tensor]:
    return tree.add(params, ball.stretch(params, u), alpha=ball.rho)


def _steepest(
    objective: Objective, params: Params, ball: Ball, u: Params
) -> dict[str, Tensor] | None:
    """The steepest direction at a point of the ball, of p-norm one, if there is one."""
    slope = ball.stretch(params, objective.value_and_grad(_moved(params, ball, u))[1])
    length = tree.norm(slope, 2.0).item()
    return Ball(1.0, ball.p).shift(params, slope) if math.isfinite(length) and length else None


def _across(u: Params, first: Params, p: float) -> dict[str, Tensor] | None:
    """The part of a direction that is orthogonal to another, of p-norm one, if there is one."""
    share = tree.dot(u, first) / tree.dot(first, first)
    rest = {name: t - (share * first[name]).to(t.dtype) for name, t in u.items()}
    turned = tree.norm(rest, 2.0).item() > _SAME * tree.norm(u, 2.0).item()
    return _unit(rest, p) if turned else None


def _unit(u: Params, p: float) -> dict[str, Tensor]:
    return tree.divide(u, tree.norm(u, p))


def _random(like: Params, generator: torch.Generator) -> dict[str, Tensor]:
    return {name: torch.empty_like(t).normal_(generator=generator) for name, t in like.items()}
