"""Checks of what an ensemble is built from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

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
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(
            "model must have a parameter with requires_grad, for those without stay as they are; "
            "all of it is frozen."
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


def check_base(base: Callable[[list[nn.Parameter]], Optimizer], learning: Sequence[Tensor]) -> None:
    """Check that one member's gradient changes no other member, by a step of stacks of such shapes.

    Raises:
        ValueError: If it does, or the optimizer does not step with gradients alone.
    """

    def others(factor: float) -> list[Tensor]:
        """All members but the last after a step in which its gradient is so much larger."""
        stacks = [nn.Parameter(torch.ones_like(p)) for p in learning]
        optimizer = base(stacks)
        for p in stacks:
            p.grad = torch.linspace(-1.0, 1.0, p.numel(), dtype=p.dtype, device=p.device).view_as(p)
            p.grad[-1] *= factor
        try:
            optimizer.step()
        except TypeError as error:
            raise ValueError(
                f"base must step without a closure, which {type(optimizer).__name__} needs; take "
                "SGD, Adam, AdamW or RMSprop."
            ) from error
        return [p.detach()[:-1] for p in stacks]

    with torch.random.fork_rng(devices=[]):
        state = torch.get_rng_state()
        one = others(1.0)
        torch.set_rng_state(state)  # one that draws may draw the same
        other = others(100.0)
    if not all(map(torch.equal, one, other)):
        raise ValueError(
            "base must treat every number by itself, and this one lets a member's gradient change "
            "other members, as Adafactor does; take SGD, Adam, AdamW or RMSprop."
        )
