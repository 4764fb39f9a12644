"""WSAM: the sharpness as a term of its own, with a weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin._given import plain
from flatmin.optim import _sharded
from flatmin.optim._factor import Sizes, common_factor, values
from flatmin.optim._gradients import are_finite, finite_here, parameters
from flatmin.optim._memory import locals_of
from flatmin.optim._restore import lay
from flatmin.optim._spare import can_move
from flatmin.optim._stretches import LONG, stretches
from flatmin.optim._two_gradients import TwoGradients
from flatmin.optim._workspace import is_shared
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
        self.gamma, self.decoupled = plain(gamma), decoupled
        super().__init__(base, rho, scale=scale, p=p, model=model, fused=fused, when=when)

    def _mix(self, params: list[Tensor], g: list[Tensor], s: list[Tensor]) -> None:
        c = self.gamma / (1.0 - self.gamma)
        if not self.decoupled:
            for some_s, some_g in stretches(s, g, most=LONG):
                if all(map(_lie_alike, some_s, some_g)):
                    torch._foreach_lerp_(some_s, some_g, 1.0 - c)
                else:
                    torch._foreach_mul_(some_s, c)
                    torch._foreach_add_(some_s, some_g, alpha=1.0 - c)
            return
        self._visit.sizes, rises = _subtract(s, g)
        rise = [_exchanged(*pair) for pair in zip(s, g, strict=True)]
        if not (rises.are_finite() or are_finite([v for v in map(values, rise) if v.numel()])):
            for gradient in s:  # which are the first ones now; who looks at them is to notice
                gradient.fill_(math.nan)
        self._visit.aside.update(zip(params, rise, strict=True))

    def _are_finite(self) -> bool:
        visit, groups = self._visit, self.param_groups
        visit.after = Sizes()
        grads = locals_of(p.grad for p in visit.aside if p.grad is not None)
        if len(grads) != len(visit.aside):
            return super()._are_finite()
        # The walk that tells the factor tells this as well.
        for some, _ in stretches(grads, visit.aside.values(), most=LONG):
            visit.after.add(some)
        rest = [{"params": [p for p in parameters(groups) if p not in visit.aside]}]
        finite = visit.after.are_finite() or finite_here(groups)
        return _sharded.agree(finite and finite_here(rest), groups)

    def _step(self) -> None:
        rise = dict(self._visit.aside)
        if rise and any(group.get("lr") is None for group in self.param_groups):
            raise ValueError(
                "the decoupled part of WSAM is scaled by the learning rate of its group, and a "
                "group has lr=None; give the base a learning rate, or set decoupled=False."
            )
        factor = self._factor() if rise else 1.0
        super()._step()
        c = self.gamma / (1.0 - self.gamma)
        with torch.no_grad():
            for group in self.param_groups:
                if moved := [p for p in group["params"] if p in rise]:
                    alpha = -self._sign(group) * factor * c * float(group["lr"])
                    torch._foreach_add_(locals_of(moved), [rise[p] for p in moved], alpha=alpha)
        for done in rise.values():
            if can_move(done):
                self._workspace.trade(done)

    def _factor(self) -> float:
        """What the gradients have been multiplied with since the block."""
        before, after = self._visit.sizes, self._visit.after
        if not (before.are_finite() and after.are_finite()):
            raise RuntimeError(
                "the gradients are finite but their squares are not, so the decoupled part of WSAM "
                "cannot tell by what they were multiplied after the block; scale the loss down, or "
                "set decoupled=False."
            )
        factor = common_factor(before, after)
        if factor is None:
            raise RuntimeError(
                "the gradients were changed after the block otherwise than by a common factor, "
                "which the decoupled part of WSAM cannot follow; clip by the norm, add what is "
                "to be added in the block, or set decoupled=False."
            )
        return factor

    def _refuse_parts(self) -> None:
        if self.decoupled:
            raise RuntimeError(
                "WSAM keeps the rise of one block apart, and micro_batches() has several; set "
                "decoupled=False, or put all first passes before one block of perturbed() and all "
                "second ones in it."
            )
        super()._refuse_parts()


def _subtract(s: list[Tensor], g: list[Tensor]) -> tuple[Sizes, Sizes]:
    """Take the first gradients from the second ones; the sizes of both."""
    # In a function of its own, for nobody may have a name for their memory when they are exchanged.
    firsts, rises = Sizes(), Sizes()
    for some_s, some_g in stretches(s, g, most=LONG):
        torch._foreach_sub_(some_s, some_g)
        firsts.add(some_g)
        rises.add(some_s)
    return firsts, rises


def _lie_alike(s: Tensor, g: Tensor) -> bool:
    return s.layout == g.layout == torch.strided and s.dtype == g.dtype


def _exchanged(s: Tensor, g: Tensor) -> Tensor:
    """Let the second gradient have the values of the first one; what it had itself.

    The first one's memory is nobody else's, and its own may be lent to others: a bucket of DDP.
    """
    if _lie_alike(s, g) and not is_shared(s):
        had = s.detach()
        lay(s, g)
        return had
    had = s.clone()
    s.copy_(g)
    return had
