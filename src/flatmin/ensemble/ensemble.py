"""Ensemble: many small networks trained at once, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from flatmin._types import Params
from flatmin.ball import Ball
from flatmin.ensemble._direction import LossFunction
from flatmin.ensemble._members import check_balls, count_members
from flatmin.ensemble._stack import Stack, rows_by_kind
from flatmin.ensemble.side_by_side import side_by_side
from flatmin.ensemble.stacked import ensemble_outputs

# The most members whose activations and parameters still lie in the processor's cache together.
_TOGETHER = 512


class Ensemble:
    r"""Any number of equal networks trained together, each as if it were alone.

    Every member has its own weights, data, order of batches and neighbourhood; a step is that of
    ``SAM`` or ``ASAM`` around the base optimizer, or of the base optimizer alone:

    .. math:: w_m \leftarrow \text{base}\bigl(w_m, \nabla L_m(w_m + \epsilon_m)\bigr), \quad
        \epsilon_m = \arg\max_{w_m + \epsilon \in B_m(w_m)} \langle \nabla L_m(w_m), \epsilon\rangle

    The parameters lie stacked along a first dimension, one product of matrices serves all members,
    and the ball takes one norm per member. Members that climb in the same way are trained in parts
    of up to ``together`` networks, small enough to stay in the processor's cache.

    A member whose weights cease to be finite is named in ``diverged`` at the end of the epoch; the
    others do not notice it. (A ``SAM`` of one network skips such a step instead.)

    Args:
        model: One network of the kind, without BatchNorm or other buffers that training changes,
            and without dropout. Its own parameters are neither used nor changed, but those
            without ``requires_grad`` stay as they are in every member.
        params: Where each member starts, as ``stack_networks`` gives it. Copied.
        balls: One entry per member: the ball it climbs in, or None for the base optimizer alone.
        base: Builds the base optimizer from a list of stacked parameters, those that learn. It must
            treat every number by itself, as SGD, Adam, AdamW and RMSprop do; this is tried
            first. ``fused=True`` is fastest.
        loss_function: Mean loss of a batch of one member: outputs and targets to a scalar.
        schedule: Builds a scheduler from the base optimizer; it is stepped after each epoch.
        together: The most members in a stack.

    Attributes:
        epoch: Epochs trained so far.
        diverged: Members whose weights are no longer finite, and the epoch in which they ceased
            to be, counted from one.

    Raises:
        TypeError: If an entry of ``balls`` is neither a ball nor None.
        ValueError: If the parameters are not stacked parameters of ``model``, ``balls`` has another
            length than the members, a ball is already one of several members, the model keeps
            running statistics or is wholly frozen, or ``base`` mixes members.

    Example:
        Two members minimize w² from w = 1 by SGD of rate 0.1: one with the gradient there, 2, and
        one with the gradient at distance 0.5 uphill, 3.

        >>> ensemble = Ensemble(
        ...     nn.Linear(1, 1, bias=False),
        ...     {"weight": torch.ones(2, 1, 1)},
        ...     balls=[None, Ball(0.5)],
        ...     base=lambda params: torch.optim.SGD(params, lr=0.1),
        ...     loss_function=nn.functional.mse_loss,
        ... )
        >>> inputs, targets = torch.ones(2, 1, 1), torch.zeros(2, 1, 1)
        >>> order = torch.zeros(2, 1, dtype=torch.long)
        >>> ensemble.train_epoch(inputs, targets, order, batch_size=1).tolist()
        [1.0, 1.0]
        >>> [round(w, 6) for w in ensemble.params["weight"].flatten().tolist()]
        [0.8, 0.7]

    Source:
        Foret et al. 2021, arXiv:2010.01412, algorithm 1; Kwon et al. 2021, arXiv:2102.11600,
        algorithm 1, for each member.
    """

    def __init__(
        self,
        model: nn.Module,
        params: Params,
        balls: Sequence[Ball | None],
        base: Callable[[list[nn.Parameter]], Optimizer],
        *,
        loss_function: LossFunction = F.cross_entropy,
        schedule: Callable[[Optimizer], LRScheduler] | None = None,
        together: int = _TOGETHER,
    ) -> None:
        members = count_members(model, params)
        check_balls(balls, members)
        if together < 1:
            raise ValueError(f"together must be at least 1 member, got {together}.")
        self.model = model
        self.members = members
        self.epoch = 0
        self.diverged: dict[int, int] = {}
        self._stacks = [
            Stack.build(
                model, loss_function, params, rows, [balls[m] for m in rows], base, schedule
            )
            for rows in rows_by_kind(balls, together)
        ]

    @property
    def params(self) -> dict[str, Tensor]:
        """A copy of all parameters in the order of the members, each ``[members, ...]``."""
        first = self._stacks[0].params
        whole = {name: p.new_empty(self.members, *p.shape[1:]) for name, p in first.items()}
        for stack in self._stacks:
            for name, p in stack.params.items():
                whole[name][stack.rows] = p.detach()
        return whole

    def train_epoch(
        self, inputs: Tensor, targets: Tensor, order: Tensor, batch_size: int
    ) -> Tensor:
        """Train every member on its own examples in its own order, and step the schedule.

        Args:
            inputs: Inputs of each member, ``[members, n, ...]``. ``expand`` shares one set of
                data among members without copies.
            targets: Targets of each member, ``[members, n, ...]``.
            order: Numbers of the examples in the order in which each member sees them,
                ``[members, count]``; a number may come more than once, or not at all.
            batch_size: Examples in a batch; the last one may be smaller.

        Returns:
            Mean training loss of each member over the epoch's batches, each at the weights before
            its step; shape ``[members]``.

        Raises:
            ValueError: If a leading dimension is not the number of members, or ``batch_size`` is
                below one.
        """
        for name, tensor in (("inputs", inputs), ("targets", targets), ("order", order)):
            if tensor.ndim < 2 or tensor.shape[0] != self.members:
                raise ValueError(
                    f"{name} must have shape [{self.members} members, ...], got "
                    f"{tuple(tensor.shape)}; share data among members with expand()."
                )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")

        def train(stack: Stack) -> Tensor:
            rows = stack.rows[:, None]
            chosen = order[stack.rows]
            return stack.train_epoch(inputs[rows, chosen], targets[rows, chosen], batch_size)

        parts = side_by_side(train, self._stacks)
        losses = torch.empty(self.members, dtype=parts[0].dtype, device=parts[0].device)
        for stack, part in zip(self._stacks, parts, strict=True):
            losses[stack.rows] = part
        self.epoch += 1
        for stack in self._stacks:
            for member in stack.not_finite():
                self.diverged.setdefault(member, self.epoch)
        return losses

    def outputs(self, inputs: Tensor, *, shared: bool = False) -> Tensor:
        """Outputs of every member, as ``ensemble_outputs`` gives them.

        Args:
            inputs: Inputs of each member, ``[members, n, ...]``; or, where ``shared``,
                ``[n, ...]``.
            shared: Whether all members see the same inputs.

        Returns:
            Outputs of shape ``[members, n, ...]``, without a gradient.
        """
        return ensemble_outputs(self.model, self.params, inputs, shared=shared)

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on after whole epochs, bit for bit.

        Returns:
            A dictionary for ``torch.save``. Its tensors are the live ones, as in torch.
        """
        return {
            "epoch": self.epoch,
            "diverged": dict(self.diverged),
            "stacks": [stack.state_dict() for stack in self._stacks],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Args:
            state: What ``state_dict`` gave, from an ensemble built with the same arguments.

        Raises:
            ValueError: If that ensemble was cut into other parts.
        """
        rows = [stack["rows"].tolist() for stack in state["stacks"]]
        if rows != [stack.rows.tolist() for stack in self._stacks]:
            raise ValueError(
                "The state is that of an ensemble with other members, kinds of balls or "
                "`together`; build this one with the same arguments before loading."
            )
        for stack, saved in zip(self._stacks, state["stacks"], strict=True):
            stack.load_state_dict(saved)
        self.epoch = state["epoch"]
        self.diverged = dict(state["diverged"])
