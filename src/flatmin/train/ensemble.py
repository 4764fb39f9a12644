"""Ensemble: many small networks trained at once, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from flatmin._types import Params
from flatmin.ball import Ball, Elementwise
from flatmin.train._features_first import FeaturesFirst
from flatmin.train._stack import Stack, rows_by_kind

LossFunction = Callable[[Tensor, Tensor], Tensor]

# The most members whose activations and parameters still lie in the processor's cache together.
_TOGETHER = 1024


def stack_networks(networks: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Stack the parameters of equal networks along a new first dimension.

    Args:
        networks: Networks with the same names and shapes of parameters. Read, never written.

    Returns:
        Copies of the parameters, each of shape ``[members, ...]``.

    Raises:
        ValueError: If there is no network, or one has other parameters than the first.

    Example:
        >>> params = stack_networks([nn.Linear(2, 1) for _ in range(3)])
        >>> {name: tuple(value.shape) for name, value in params.items()}
        {'weight': (3, 1, 2), 'bias': (3, 1)}
    """
    if not networks:
        raise ValueError("networks must hold at least one network, got none.")
    states = [dict(network.named_parameters()) for network in networks]
    shapes = [{name: tuple(p.shape) for name, p in state.items()} for state in states]
    for number, shape in enumerate(shapes):
        if shape != shapes[0]:
            names = sorted(
                name
                for name in shape.keys() | shapes[0].keys()
                if shape.get(name) != shapes[0].get(name)
            )
            raise ValueError(
                f"The networks of an ensemble must have equal parameters, but network {number} "
                f"differs from network 0 in {names[0]}: {shape.get(names[0])} against "
                f"{shapes[0].get(names[0])}; build them all with the same arguments."
            )
    return {name: torch.stack([s[name].detach() for s in states]) for name in states[0]}


def ensemble_outputs(
    model: nn.Module, params: Params, inputs: Tensor, *, shared: bool = False
) -> Tensor:
    """Outputs of every member of an ensemble.

    Args:
        model: One network of the kind; its own parameters are not used.
        params: Stacked parameters, each ``[members, ...]``.
        inputs: Inputs of each member, ``[members, n, ...]``; or, where ``shared``, ``[n, ...]``.
        shared: Whether all members see the same inputs.

    Returns:
        Outputs of shape ``[members, n, ...]``, without a gradient.

    Example:
        >>> params = {"weight": torch.tensor([[[1.0]], [[2.0]]])}
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> ensemble_outputs(layer, params, torch.tensor([[3.0]]), shared=True).flatten().tolist()
        [3.0, 6.0]
    """
    with torch.no_grad(), FeaturesFirst():
        outputs: Tensor = vmap(
            lambda w, x: functional_call(model, w, (x,)), in_dims=(0, None if shared else 0)
        )(dict(params), inputs)
    return outputs


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
            and without dropout. Its own parameters are neither used nor changed.
        params: Where each member starts, as ``stack_networks`` gives it. Copied.
        balls: One entry per member: the ball it climbs in, or None for the base optimizer alone.
        base: Builds the base optimizer from a list of stacked parameters. It must treat every
            number by itself, as SGD, Adam, AdamW and RMSprop do. ``fused=True`` is fastest.
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
            length than the members, a ball is already one of several members, or the model or the
            base optimizer would mix members.

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
        members = _count_members(model, params)
        _check_balls(balls, members)
        if together < 1:
            raise ValueError(f"together must be at least 1 member, got {together}.")
        self.model = model
        self.loss_function = loss_function
        self.members = members
        self._dtype = next(iter(params.values())).dtype
        self.epoch = 0
        self.diverged: dict[int, int] = {}
        self._stacks = [
            Stack.build(params, rows, [balls[m] for m in rows], base, schedule)
            for rows in rows_by_kind(balls, together)
        ]

    @property
    def params(self) -> dict[str, Tensor]:
        """A copy of all parameters, in the order of the members: each ``[members, ...]``."""
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
        losses = torch.empty(self.members, dtype=self._dtype, device=inputs.device)
        for stack in self._stacks:
            rows = stack.rows[:, None]
            chosen = order[stack.rows]
            losses[stack.rows] = self._train(
                stack, inputs[rows, chosen], targets[rows, chosen], batch_size
            )
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

    def _train(self, stack: Stack, inputs: Tensor, targets: Tensor, batch_size: int) -> Tensor:
        """One epoch of one stack; mean loss of each of its members."""
        pairs = list(
            zip(*(torch.split(t, batch_size, dim=1) for t in (inputs, targets)), strict=True)
        )
        total = torch.zeros_like(stack.rows, dtype=self._dtype)
        with FeaturesFirst():
            for x, y in pairs:
                total += stack.step(partial(self._losses, x, y))
        if stack.schedule is not None:
            stack.schedule.step()
        return total / len(pairs)

    def _losses(self, inputs: Tensor, targets: Tensor, params: Params) -> Tensor:
        """Loss of each member of a stack."""

        def loss(w: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return self.loss_function(functional_call(self.model, w, (x,)), y)

        losses: Tensor = vmap(loss)(dict(params), inputs, targets)
        return losses


def _count_members(model: nn.Module, params: Params) -> int:
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


def _check_balls(balls: Sequence[Ball | None], members: int) -> None:
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
