"""First-order sharpness: the gradient's norm in the geometry of a ball."""

from __future__ import annotations

from flatmin._types import Params
from flatmin.ball import Ball
from flatmin.objective import Objective
from flatmin.scale import Scale
from flatmin.sharpness import _point as point
from flatmin.sharpness.measurement import Measurement


def gradient_norm(
    objective: Objective, params: Params, *, scale: Scale = point.INVARIANT, p: float = 2.0
) -> Measurement:
    r"""Norm of the gradient as a ball sees it: the first-order rise per unit of rho.

    .. math:: \|T_w \nabla L(w)\|_q = \max_{\|u\|_p \le 1} \langle \nabla L(w), T_w u \rangle,
        \quad 1/p + 1/q = 1

    The cheapest measure, one gradient. It vanishes at every stationary point, sharp or flat.

    Args:
        objective: Mean loss over a fixed data set, in nats per example for cross-entropy.
        params: The point ``w``: names to floating tensors of any shape. Read, never written.
        scale: The map ``T_w``; the default is invariant when units are rescaled.
        p: Order of the ball; the norm taken is the dual one, the Euclidean for the default.

    Returns:
        ``value`` in units of the loss (for ``Identity``, per parameter unit).

    Raises:
        ValueError: If the loss at ``params`` or its gradient is not finite.

    Example:
        ``x² / 2`` has the gradient 3 at x = 3, and T = 3 there.

        >>> import torch
        >>> from flatmin import FunctionObjective, Identity
        >>> parabola = FunctionObjective(lambda w: w["x"].square().sum() / 2)
        >>> gradient_norm(parabola, {"x": torch.tensor(3.0)}).value
        9.0
        >>> gradient_norm(parabola, {"x": torch.tensor(3.0)}, scale=Identity()).value
        3.0

    Source:
        Kwon et al. 2021, arXiv:2102.11600, eq. 5.
    """
    here = point.survey(objective, params, scale)
    loss, grad = objective.value_and_grad(params)
    point.finite(loss)
    support = point.finite_support(Ball(1.0, p, scale).support(params, grad))
    here.check_stationary(support)
    return Measurement(
        value=support,
        gradients=1,
        dead_fraction=here.dead_fraction,
        warnings=tuple(here.warnings),
    )
