"""Friendly SAM: the perturbation along what is particular to a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin._given import plain
from flatmin.optim._in_ball import InBall
from flatmin.optim._memory import Memory, gradients_of, locals_of, own_gradients, remembered
from flatmin.optim.radius import FollowingLR
from flatmin.optim.when import When
from flatmin.scale import Identity, Scale


class FriendlySAM(InBall):
    r"""SAM that climbs along the noise of a batch: its gradient less the mean of those before.

    .. math:: \epsilon_t = \rho \, d_t / \|d_t\|_2 \;\; (p = 2), \quad d_t = g_t - m_{t-1}, \quad
        m_t = \lambda m_{t-1} + (1 - \lambda) g_t

    with :math:`d_0 = m_0 = g_0`. The mean stands for the gradient of all examples, along which a
    climb does not help. It is of the gradients at the weights in the steps that perturb; a skipped
    step leaves it. It is kept in the state of the base, one number a parameter. Under DDP with
    local perturbations each process has its own.

    Evidence: the authors' own.

    Args:
        base: As for ``SAM``.
        rho: Radius of the ball. A group may set its own as ``sam_rho``.
        decay: The part λ of the mean that stays from step to step; 0.6 in the paper's scripts.
        scale: The scale of the ball; ``Elementwise(0.01, biases=False)`` is ASAM's.
        p: Order of the norm, from 1 to infinity.
        model: As for ``SAM``.
        fused: As for ``SAM``.
        when: In which steps to perturb; None for all. In the others the base steps alone.

    Raises:
        TypeError: If ``base`` is no torch optimizer instance, nor several.
        ValueError: If an argument is out of range.
        RuntimeError: In ``micro_batches()``, whose parts have gradients of another size.

    Example:
        The loss x² from x = 1 with rate 0.1: the first step is SAM's, to 0.7. There the gradient is
        1.4 and the mean 2: the climb is by −0.5, to where the gradient is 0.4.

        >>> import torch
        >>> x = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = FriendlySAM(torch.optim.SGD([x], lr=0.1), rho=0.5)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = x.square().sum()
        ...     loss.backward()
        ...     return loss
        >>> for _ in range(2):
        ...     _ = optimizer.step(closure)
        >>> round(x.item(), 6)
        0.66

    Source:
        Li et al. 2024, arXiv:2403.12350, algorithm 1 with σ = 1.
    """

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float | FollowingLR = 0.05,
        *,
        decay: float = 0.9,
        scale: Scale = Identity(),  # noqa: B008  a frozen value
        p: float = 2.0,
        model: nn.Module | None = None,
        fused: bool = False,
        when: When | None = None,
    ) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}.")
        self.decay = plain(decay)
        super().__init__(base, rho, scale=scale, p=p, model=model, fused=fused, when=when)

    def _directions(
        self, params: Sequence[Tensor], states: Mapping[Tensor, Any]
    ) -> list[Tensor | None]:
        d = own_gradients(params)
        means = {p: m for p in d if (m := remembered(states, p, "sam_mean")) is not None}
        if means:
            torch._foreach_sub_(locals_of(d[p] for p in means), locals_of(means.values()))
        self._visit.aside.update(d)
        return [d.get(p) for p in params]

    def _step(self) -> None:
        d = {p: t for p, t in self._visit.aside.items() if p.grad is not None}
        memory = Memory(self.base, "sam_mean", self._climbs)
        means = memory.read()
        if not d and not means and not self._has_learned():
            # Checkpoints step with zeros to see what the state is, and then load into it.
            d = {p: torch.zeros_like(t) for p, t in gradients_of(memory.params).items()}
        super()._step()
        if old := [p for p in d if p in means]:
            # λ m + (1 − λ) g, since g = m + d.
            torch._foreach_add_(
                locals_of(means[p] for p in old),
                locals_of(d[p] for p in old),
                alpha=1 - self.decay,
            )
        memory.write({**d, **means})

    def _comparing(self) -> str:
        return type(self).__name__
