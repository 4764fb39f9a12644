"""SSAM: a perturbed gradient of the size of the plain one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin.optim._inner import inner
from flatmin.optim._two_gradients import TwoGradients
from flatmin.optim.radius import FollowingLR
from flatmin.optim.when import When
from flatmin.scale import Identity, Scale


class SSAM(TwoGradients):
    r"""Stable SAM: the direction of the perturbed gradient, the size of the plain one.

    With g the gradient at the weights and s the one at the perturbed point, the step is the base's
    with

    .. math:: s \, \|g\|_2 / \|s\|_2

    which leaves larger learning rates stable. A base that does not look at the size of gradients,
    such as Adam, sees how it changes from step to step, and no more.

    Evidence: the authors' own.

    Args:
        base: As for ``SAM``.
        rho: Radius of the ball. A group may set its own as ``sam_rho``.
        scale: The scale of the ball; ``Elementwise(0.01, biases=False)`` is ASAM's.
        p: Order of the norm, from 1 to infinity.
        model: As for ``SAM``; the module of DDP shows that both passes are synchronized.
        fused: As for ``SAM``; the first gradient is still needed, so nothing is fused.
        when: In which steps to perturb; None for all. In the others the base steps alone.

    Raises:
        TypeError: If ``base`` is no torch optimizer instance, nor several.
        ValueError: If an argument is out of range.
        RuntimeError: At a step, if DDP averaged the second gradient and not the first.

    Example:
        The loss x² has gradient 2 at x = 1; at distance 0.5 uphill it has 3, which is made 2 again.

        >>> import torch
        >>> x = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = SSAM(torch.optim.SGD([x], lr=0.1), rho=0.5)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = x.square().sum()
        ...     loss.backward()
        ...     return loss
        >>> optimizer.step(closure).item(), round(x.item(), 6)
        (1.0, 0.8)

    Source:
        Tan et al. 2024, arXiv:2401.07250, algorithm 1.
    """

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float | FollowingLR = 0.05,
        *,
        scale: Scale = Identity(),  # noqa: B008  a frozen value
        p: float = 2.0,
        model: nn.Module | None = None,
        fused: bool = False,
        when: When | None = None,
    ) -> None:
        super().__init__(base, rho, scale=scale, p=p, model=model, fused=fused, when=when)

    def _mix(self, params: list[Tensor], g: list[Tensor], s: list[Tensor]) -> None:
        size, of_s = (math.sqrt(inner(params, t, t)) for t in (g, s))
        if of_s:
            torch._foreach_mul_(s, size / of_s)
