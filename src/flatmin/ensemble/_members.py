"""Checks of what an ensemble is built from."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from flatmin._types import Params
from flatmin.ball import Ball
from flatmin.scale import Elementwise


def count_members(model: nn.Module, params: Params) -> int:
    """Count the members after checking that these are stacked parameters of the model."""
    if any(
        isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats
        for m in model.modules()
    ):
        raise ValueError(
            "The model keeps running statistics (BatchNorm), which an ensemble cannot train; "
            "use GroupNorm or LayerNorm, or track_running_stats=False."
        )
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    if shapes.keys() != params.keys():
        odd = sorted(shapes.keys() ^ params.keys())
        raise ValueError(
            f"params must name the parameters of the model, but differ in {', '.join(odd)}; "
            "build them with stack_networks."
        )
    members = {p.shape[0] if p.ndim else 0 for p in params.values()}
    if len(members) != 1 or 0 in members:
        raise ValueError(
            f"params must agree in their first dimension, the members, got {sorted(members)}; "
            "build them with stack_networks."
        )
    (count,) = members
    for name, p in params.items():
        if tuple(p.shape[1:]) != shapes[name]:
            raise ValueError(
                f"{name} must have shape {(count, *shapes[name])}: members first, then as in the "
                f"model; got {tuple(p.shape)}."
            )
    return count


def check_balls(balls: Sequence[Ball | None], members: int) -> None:
    """Check that there is a ball of one member, or None, for each member."""
    if len(balls) != members:
        raise ValueError(
            f"balls must have one entry for each of the {members} members, got {len(balls)}; "
            "for one ball for all, write [ball] * members."
        )
    for number, ball in enumerate(balls):
        if ball is not None and not isinstance(ball, Ball):
            raise TypeError(
                f"balls[{number}] must be a Ball, or None for the base optimizer alone, "
                f"got {ball!r}."
            )
        eta = ball.scale.eta if ball and isinstance(ball.scale, Elementwise) else 0.0
        if ball is not None and (isinstance(ball.rho, Tensor) or isinstance(eta, Tensor)):
            raise ValueError(
                f"balls[{number}] must be the ball of one member, with numbers for rho and eta, "
                "not tensors; write [Ball(rho) for rho in rhos]."
            )
