"""Sharpness by climbing: how far the loss rises on the way to the edge of a ball."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flatmin import _tree as tree
from flatmin._types import Params
from flatmin.ball import Ball
from flatmin.objective import Objective


@dataclass(frozen=True, slots=True)
class Sharpness:
    """How much the loss rises in a ball.

    Attributes:
        value: The rise ``loss_at_worst - loss``, in units of the loss.
        loss: Loss at the point itself.
        gradients: Gradients of the objective that were evaluated.
        forwards: Values of the objective that were evaluated without a gradient.

    Example:
        >>> Sharpness(value=0.5, loss=1.0, gradients=1, forwards=1).worst_loss
        1.5
    """

    value: float
    loss: float
    gradients: int
    forwards: int

    @property
    def worst_loss(self) -> float:
        """Loss at the worst point found: the quantity that SAM minimizes."""
        return self.loss + self.value


def one_step_sharpness(objective: Objective, params: Params, ball: Ball) -> Sharpness:
    r"""Rise of the loss at the closed-form worst point of a ball: the SAM or ASAM step.

    .. math:: S(w) = L(w + \epsilon) - L(w), \quad
        \epsilon = \arg\max_{w + \epsilon \in B(w)} \langle \nabla L(w), \epsilon \rangle

    One linear step, not a search: where the loss curves, it may miss the maximum and even be
    negative. Costs one gradient and one forward pass over the data.

    Args:
        objective: Mean loss over a fixed data set, in nats per example for cross-entropy.
        params: The point ``w``: names to floating tensors of any shape. Read, never written.
        ball: The neighbourhood. ``ball.rho`` is in parameter units for ``Identity`` and
            dimensionless for ``Elementwise``.

    Returns:
        ``value``, the rise, and ``worst_loss``, the plotted "SAM loss", in units of the loss.

    Raises:
        ValueError: If the loss at ``params`` is not finite.

    Example:
        ``2 x²`` rises from 2.0 at ``x = 1`` to 4.5 at ``x = 1.5``, the edge of the ball.

        >>> import torch
        >>> from flatmin import FunctionObjective
        >>> parabola = FunctionObjective(lambda w: 2 * w["x"].square().sum())
        >>> one_step_sharpness(parabola, {"x": torch.ones(1)}, Ball(rho=0.5)).value
        2.5

    Source:
        Foret et al. 2021, arXiv:2010.01412, eq. 2; Kwon et al. 2021, arXiv:2102.11600, eq. 5.
    """
    loss, grad = objective.value_and_grad(params)
    base = loss.item()
    if not math.isfinite(base):
        raise ValueError(
            f"the loss at params must be finite, got {base}; a diverged network has no sharpness."
        )
    worst = objective.value(tree.add(params, ball.shift(params, grad))).item()
    return Sharpness(value=worst - base, loss=base, gradients=1, forwards=1)
