"""WSAM: the sharpness as a term of its own, with a weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin.optim._memory import locals_of
from flatmin.optim._stretches import stretches
from flatmin.optim._two_gradients import TwoGradients
from flatmin.optim.radius import FollowingLR
from flatmin.optim.when import When
from flatmin.scale import Identity, Scale


class WSAM(TwoGradients):
    r"""Weighted SAM: the loss, and its rise with a weight.

    The rise has the gradient s − g, with g the gradient at the weights and s the one at the
    perturbed point. Decoupled, as weight decay is in AdamW, it never enters the base:

    .. math:: w \leftarrow \text{base}(w, g) - \alpha\, c\, (s - g), \quad c = \gamma/(1 - \gamma)

    with the learning rate α of the group; coupled, the base steps with :math:`c\,s + (1 - c)\,g`.

    Decoupled, ``.grad`` holds g after the block. A factor that it is multiplied with before the
    step, as by ``GradScaler`` and by clipping its norm, counts for both parts; any other change is
    refused. Hooks of the base see the weights before the second part.

    Evidence: the authors' own.

    Args:
        base: As for ``SAM``.
        rho: Radius of the ball. A group may set its own as ``sam_rho``.
        gamma: Weight of the rise, below 1; ½, coupled, is SAM, and 0 the base. The paper
            found 0.8 to 0.95 best.
        decoupled: Whether the rise stays out of the base.
        scale: The scale of the ball; ``Elementwise(0.01, biases=False)`` is ASAM's.
        p: Order of the norm, from 1 to infinity.
        model: As for ``SAM``; the module of DDP shows that both passes are synchronized.
        fused: As for ``SAM``; the first gradient is still needed, so nothing is fused.
        when: In which steps to perturb; None for all. In the others the base steps alone.

    Raises:
        TypeError: If ``base`` is no torch optimizer instance, nor several.
        ValueError: If an argument is out of range.
        RuntimeError: At a step, if DDP averaged the second gradient and not the first, or if the
            gradient was changed in a way that the decoupled part cannot follow.

    Example:
        The loss x² has gradient 2 at x = 1; at distance 0.5 uphill it has 3: the rise has 1, and
        γ = ¾ weighs it three times.

        >>> import torch
        >>> x = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = WSAM(torch.optim.SGD([x], lr=0.1), rho=0.5, gamma=0.75)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = x.square().sum()
        ...     loss.backward()
        ...     return loss
        >>> optimizer.step(closure).item(), round(x.item(), 6)
        (1.0, 0.5)

    Source:
        Yue et al. 2023, arXiv:2305.15817, algorithm 1, and section 4 for the decoupled form.
    """

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float | FollowingLR = 0.05,
        *,
        gamma: float = 0.9,
        decoupled: bool = True,
        scale: Scale = Identity(),  # noqa: B008  a frozen value
        p: float = 2.0,
        model: nn.Module | None = None,
        fused: bool = False,
        when: When | None = None,
    ) -> None:
        if not 0.0 <= gamma < 1.0:
            raise ValueError(f"gamma must be at least 0 and below 1, got {gamma}; 0.5 is SAM.")
        self.gamma, self.decoupled = gamma, decoupled
        super().__init__(base, rho, scale=scale, p=p, model=model, fused=fused, when=when)

    def _mix(self, params: list[Tensor], g: list[Tensor], s: list[Tensor]) -> None:
        c = self.gamma / (1.0 - self.gamma)
        if not self.decoupled:
            for some_s, some_g in stretches(s, g):
                torch._foreach_mul_(some_s, c)
                torch._foreach_add_(some_s, some_g, alpha=1.0 - c)
            return
        for some_s, some_g in stretches(s, g):  # which change places, but for the difference
            first = self._workspace.room("direction", some_g, some_g[0].dtype)
            torch._foreach_copy_(first, some_g)
            torch._foreach_sub_(some_g, some_s)
            torch._foreach_mul_(some_g, -c)
            torch._foreach_mul_(some_s, 0.0)  # what is not finite stays so, and is noticed
            torch._foreach_add_(some_s, first)
        self._visit.aside.update(zip(params, g, strict=True))
        self._visit.sizes = _sizes(params)

    def _step(self) -> None:
        rise = dict(self._visit.aside)
        factor = self._factor(list(rise)) if rise else 1.0
        super()._step()
        with torch.no_grad():
            for group in self.param_groups:
                if moved := [p for p in group["params"] if p in rise]:
                    alpha = -self._sign(group) * factor * float(group["lr"])
                    torch._foreach_add_(locals_of(moved), [rise[p] for p in moved], alpha=alpha)

    def _factor(self, params: list[Tensor]) -> float:
        """What the gradients have been multiplied with since the block."""
        before, now = (
            torch.stack(sizes).double().cpu() for sizes in (self._visit.sizes, _sizes(params))
        )
        seen = before > 1e-3 * before.max()
        if not seen.any():
            return 1.0
        factors = now[seen] / before[seen]
        if factors.max() - factors.min() > 0.01 * factors.max():
            raise RuntimeError(
                "the gradients were changed after the block otherwise than by a common factor, "
                "which the decoupled part of WSAM cannot follow; clip by the norm, add what is "
                "to be added in the block, or set decoupled=False."
            )
        return factors.max().item()

    def _refuse_parts(self) -> None:
        if self.decoupled:
            raise RuntimeError(
                "WSAM keeps the rise of one block apart, and micro_batches() has several; set "
                "decoupled=False, or put all first passes before one block of perturbed() and all "
                "second ones in it."
            )
        super()._refuse_parts()


def _sizes(params: list[Tensor]) -> list[Tensor]:
    grads = locals_of(p.grad for p in params if p.grad is not None)
    return list(torch._foreach_norm([g.to_dense() if g.is_sparse else g for g in grads]))
