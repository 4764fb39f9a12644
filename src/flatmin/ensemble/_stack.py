"""Members of an ensemble that climb in the same way, trained as one stack of parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from flatmin._types import Params
from flatmin.ball import Ball
from flatmin.ensemble._direction import Direction, LossFunction
from flatmin.ensemble._members import check_base
from flatmin.ensemble._recorded import Recorded
from flatmin.scale import Elementwise


@dataclass(frozen=True, slots=True)
class Stack:
    """Some members' parameters, the gradients they step with, and their base optimizer."""

    rows: Tensor  # the members' numbers in the ensemble
    params: dict[str, nn.Parameter]
    direction: Recorded
    base: Optimizer
    schedule: LRScheduler | None

    @classmethod
    def build(
        cls,
        model: nn.Module,
        loss_function: LossFunction,
        params: Params,
        rows: list[int],
        balls: Sequence[Ball | None],
        base: Callable[[list[nn.Parameter]], Optimizer],
        schedule: Callable[[Optimizer], LRScheduler] | None,
    ) -> Stack:
        """Copy the members' parameters and give them an optimizer of their own."""
        like = next(iter(params.values()))
        index = torch.tensor(rows, device=like.device)
        learns = {name: p.requires_grad for name, p in model.named_parameters()}
        own = {
            name: nn.Parameter(p.detach()[index].clone(), requires_grad=learns[name])
            for name, p in params.items()
        }
        ball = _merge([ball for ball in balls if ball is not None], like)
        learning = [p for p in own.values() if p.requires_grad]
        check_base(base, learning)
        optimizer = base(learning)
        return cls(
            index,
            own,
            Recorded(Direction(model, loss_function, ball, learns)),
            optimizer,
            schedule(optimizer) if schedule else None,
        )

    def train_epoch(self, inputs: Tensor, targets: Tensor, batch_size: int) -> Tensor:
        """Take a step for each batch and one of the schedule; give each member's mean loss."""
        batches = [torch.split(t, batch_size, dim=1) for t in (inputs, targets)]
        losses = [self._step(x, y) for x, y in zip(*batches, strict=True)]
        if self.schedule is not None:
            self.schedule.step()
        return torch.stack(losses).mean(dim=0)

    def _step(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Take one step; give the losses before it."""
        losses, *grads = self.direction(*self._point().values(), inputs, targets)
        learning = [p for p in self.params.values() if p.requires_grad]
        for param, grad in zip(learning, grads, strict=True):
            param.grad = grad
        self.base.step()
        return losses

    def not_finite(self) -> list[int]:
        """Members with a weight that is not finite."""
        finite = [p.isfinite().reshape(len(p), -1).all(dim=1) for p in self._point().values()]
        numbers: list[int] = self.rows[~torch.stack(finite).all(dim=0)].tolist()
        return numbers

    def state_dict(self) -> dict[str, Any]:
        """The live tensors and states."""
        return {
            "rows": self.rows,
            "params": self._point(),
            "base": self.base.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copy a saved state."""
        for name, value in self._point().items():
            value.copy_(state["params"][name])
        self.base.load_state_dict(state["base"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])

    def _point(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.params.items()}


def rows_by_kind(balls: Sequence[Ball | None], together: int) -> Iterator[list[int]]:
    """Group the numbers of members that climb in the same way, up to ``together`` at a time."""
    kinds: dict[object, list[int]] = {}
    for number, ball in enumerate(balls):
        kinds.setdefault(_kind(ball), []).append(number)
    for rows in kinds.values():
        parts = -(-len(rows) // together)
        size = -(-len(rows) // parts)  # equal parts rather than a small last one
        yield from (rows[start : start + size] for start in range(0, len(rows), size))


def _kind(ball: Ball | None) -> object:
    """What must be equal for balls to become one ball of many members."""
    if ball is None:
        return None
    scale = ball.scale
    return ball.p, replace(scale, eta=0.0) if isinstance(scale, Elementwise) else scale


def _merge(balls: Sequence[Ball], like: Tensor) -> Ball | None:
    """One ball with the radius, and eta where there is one, of each member."""
    if not balls:
        return None
    scale = balls[0].scale
    if isinstance(scale, Elementwise):
        etas = [ball.scale.eta for ball in balls if isinstance(ball.scale, Elementwise)]
        scale = replace(scale, eta=torch.tensor(etas, dtype=like.dtype, device=like.device))
    rho = torch.tensor([ball.rho for ball in balls], dtype=like.dtype, device=like.device)
    return replace(balls[0], rho=rho, scale=scale)
