"""AsyncSAM: the perturbation along the gradient of the step before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin.optim._memory import Memory, copied, gradients_of, remembered
from flatmin.optim._one_pass import OnePass
from flatmin.optim.radius import FollowingLR
from flatmin.optim.when import When
from flatmin.scale import Identity, Scale


class AsyncSAM(OnePass):
    r"""SAM with a gradient that is one step late, in one pass a step.

    .. math:: w_{t+1} = \text{base}(w_t, s_t), \quad s_t = \nabla L(w_t + \epsilon_t), \quad
        \epsilon_t = \rho \, s_{t-1} / \|s_{t-1}\|_2 \quad (p = 2)

    The direction is the gradient that the last step was made with, as the base got it: of the batch
    before, clipped if it was. The paper computes it at the weights of that step, meanwhile, on a
    device of its own; at the perturbed ones it costs nothing. The first step is one of the base.

    It remembers one gradient, in the state of the base. Evidence: the authors', for their form.

    Args:
        base: As for ``SAM``.
        rho: Radius of the ball. A group may set its own as ``sam_rho``.
        scale: The scale of the ball; ``Elementwise(0.01, biases=False)`` is ASAM's.
        p: Order of the norm, from 1 to infinity.
        model: For the names of parameters; the only pass leaves its own BatchNorm statistics.
        fused: As for ``SAM``.
        when: In which steps to perturb; None for all.

    Raises:
        TypeError: If ``base`` is no torch optimizer instance, nor several.
        ValueError: If an argument is out of range.

    Example:
        The loss x² from x = 1: the first step, with gradient 2, is plain; the second one looks at
        0.8 + 0.5, where the gradient is 2.6.

        >>> import torch
        >>> x = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = AsyncSAM(torch.optim.SGD([x], lr=0.1), rho=0.5)
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     with optimizer.perturbed():
        ...         x.square().sum().backward()
        ...     optimizer.step()
        >>> round(x.item(), 6)
        0.54

    Source:
        Jo et al. 2025, arXiv:2503.11147, with a delay of one.
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

    def _directions(
        self, params: Sequence[Tensor], states: Mapping[Tensor, Any]
    ) -> list[Tensor | None]:
        return [remembered(states, p, "sam_last") for p in params]

    def _step(self) -> None:
        # Copied before the base steps, which may change gradients.
        memory = Memory(self.base, "sam_last", self._climbs)
        last = copied(gradients_of(memory.params), memory.read())
        super()._step()
        memory.write(last)
