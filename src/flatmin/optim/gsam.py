"""GSAM: the perturbed loss, and the gap that it leaves to the loss itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin._given import plain
from flatmin.optim._inner import inners
from flatmin.optim._stretches import LONG, is_row, stretches
from flatmin.optim._two_gradients import TwoGradients
from flatmin.optim.radius import FollowingLR
from flatmin.optim.when import When
from flatmin.scale import Identity, Scale, check_radius


class GSAM(TwoGradients):
    r"""Surrogate gap guided SAM: less of the perturbed loss, and of its gap to the loss.

    With g the gradient at the weights and s the one at the perturbed point, the step is the base's
    with

    .. math:: s - \alpha\, g_\perp, \quad g_\perp = g - \frac{\langle g, s\rangle}{\|s\|_2^2}\, s

    so that it descends along the perturbed loss as SAM does, and along what is orthogonal to it
    raises the loss itself, which closes the gap.

    Evidence: the authors' own.

    Args:
        base: As for ``SAM``.
        rho: Radius of the ball. A group may set its own as ``sam_rho``.
        alpha: Weight of the gap; 0 is SAM. The paper has 0.6 for ViT-B/32.
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
        L = x² + 2 y² at (1, 1), with the radius of its gradient (2, 4): s = (6, 20).

        >>> import torch
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = GSAM(torch.optim.SGD([w], lr=1.0), rho=20**0.5, alpha=1.0)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = w[0] ** 2 + 2 * w[1] ** 2
        ...     loss.backward()
        ...     return loss
        >>> _ = optimizer.step(closure)
        >>> g_perp = torch.tensor([2.0, 4.0]) - 92 / 436 * torch.tensor([6.0, 20.0])
        >>> expected = 1 - (torch.tensor([6.0, 20.0]) - g_perp)
        >>> torch.allclose(w, expected)
        True

    Source:
        Zhuang et al. 2022, arXiv:2203.08065, algorithm 1.
    """

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float | FollowingLR = 0.05,
        *,
        alpha: float = 0.4,
        scale: Scale = Identity(),  # noqa: B008  a frozen value
        p: float = 2.0,
        model: nn.Module | None = None,
        fused: bool = False,
        when: When | None = None,
    ) -> None:
        self.alpha = plain(alpha)
        check_radius("alpha", self.alpha)
        super().__init__(base, rho, scale=scale, p=p, model=model, fused=fused, when=when)

    def _mix(self, params: list[Tensor], g: list[Tensor], s: list[Tensor]) -> None:
        square, both = inners(params, (s, s), (g, s))
        along = both / square if square else 0.0
        weight = 1.0 + self.alpha * along
        for some_s, some_g in stretches(s, g, most=LONG):
            if len(some_s) == 1 and all(map(is_row, (*some_s, *some_g))):
                # A column and its update of rank one: both products and the sum in one walk.
                column, one = some_s[0][:, None], some_s[0].new_ones(1)
                column.addr_(some_g[0], one, beta=weight, alpha=-self.alpha)
            else:
                torch._foreach_mul_(some_s, weight)
                torch._foreach_add_(some_s, some_g, alpha=-self.alpha)
