"""The gradient that each member of a stack takes a step with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from flatmin import _tree as tree
from flatmin._types import Params
from flatmin.ball import Ball
from flatmin.ensemble._features_first import FeaturesFirst
from flatmin.symmetry.private import private_copy

LossFunction = Callable[[Tensor, Tensor], Tensor]


class Direction:
    """Losses of the members at their weights, and their gradients at the top of the climb."""

    def __init__(
        self,
        model: nn.Module,
        loss_function: LossFunction,
        ball: Ball | None,
        learns: Mapping[str, bool],
    ) -> None:
        self.model = private_copy(model)  # a functional call is not for two threads at once
        self.loss_function = loss_function
        self.ball = ball
        self.learns = learns  # every parameter by name, in order

    def __call__(self, *arguments: Tensor) -> list[Tensor]:
        """Take the stacked parameters in order, inputs and targets; give losses and gradients.

        What does not learn has no gradient, and is neither perturbed nor a part of the norm.
        """
        *params, inputs, targets = arguments
        whole = dict(zip(self.learns, params, strict=True))
        point = {name: p for name, p in whole.items() if self.learns[name]}
        with FeaturesFirst():
            losses, grads = self._value_and_grad(point, whole, inputs, targets)
            if self.ball is not None:
                # Recorded and replayed, so no look at a value: squares below 1e-38 are zero here.
                support = self.ball.plain_support(point, grads)
                shift = self.ball.shift_of(point, grads, support)
                top = tree.tree_map(torch.add, point, shift)
                _, grads = self._value_and_grad(top, whole, inputs, targets)
        return [losses, *grads.values()]

    def _value_and_grad(
        self, point: Params, whole: Params, inputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Each member's loss, and the gradient of each loss in its own parameters."""

        def loss(w: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return self.loss_function(functional_call(self.model, w, (x,)), y)

        leaves = {name: p.detach().requires_grad_() for name, p in point.items()}
        losses: Tensor = vmap(loss)({**whole, **leaves}, inputs, targets)
        grads = torch.autograd.grad(losses.sum(), list(leaves.values()))
        return losses.detach(), dict(zip(leaves, grads, strict=True))
