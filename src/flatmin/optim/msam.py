"""MSAM: the perturbation along the momentum that the base has anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin.optim._one_pass import OnePass
from flatmin.optim.radius import FollowingLR
from flatmin.optim.when import When
from flatmin.scale import Identity, Scale


class MSAM(OnePass):
    r"""Momentum SAM: the gradient at the point that the momentum leads to, in one pass a step.

    .. math:: w \leftarrow \text{base}\bigl(w, \nabla L(w + \epsilon)\bigr), \quad
        \epsilon = -\rho \, v / \|v\|_2 \quad (p = 2)

    with v the momentum of the base before the step: ``momentum_buffer`` of SGD, ``exp_avg`` of Adam
    and AdamW, not preconditioned. The first step, without momentum, is one of the base. The norm is
    over all parameters. Elsewhere the weights rest at the perturbed point; here they are perturbed
    in the block alone, so what is evaluated or saved are the weights themselves.

    Evidence: the authors' own; one independent report found no gain over the base.

    Args:
        base: As for ``SAM``, with momentum.
        rho: Radius of the ball; a larger one than SAM's, in the paper about fifteen times. A group
            may set its own as ``sam_rho``.
        scale: The scale of the ball; ``Elementwise(0.01, biases=False)`` is ASAM's.
        p: Order of the norm, from 1 to infinity.
        model: For the names of parameters; the only pass leaves its own BatchNorm statistics.
        fused: As for ``SAM``.
        when: In which steps to perturb; None for all.

    Raises:
        TypeError: If ``base`` is no torch optimizer instance, nor several.
        ValueError: If ``base`` has no momentum, or an argument is out of range.

    Example:
        The loss x² from x = 1: the first step, with gradient 2, is plain. The momentum is 2 then,
        so the second one looks at 0.8 − 0.5, where the gradient is 0.6.

        >>> import torch
        >>> x = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = MSAM(torch.optim.SGD([x], lr=0.1, momentum=0.5), rho=0.5)
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     with optimizer.perturbed():
        ...         x.square().sum().backward()
        ...     optimizer.step()
        >>> round(x.item(), 6)
        0.64

    Source:
        Becker et al. 2024, arXiv:2401.12033, algorithm 1.
    """

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float | FollowingLR = 0.3,
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
        # What is frozen has the momentum of before, and the base does not move it.
        return [self._momentum(states.get(p, {})) if p.requires_grad else None for p in params]

    def _momentum(self, state: Mapping[str, Any]) -> Tensor | None:
        if state and not {"momentum_buffer", "exp_avg"} & state.keys():
            raise RuntimeError(
                f"MSAM climbs along the momentum of its base, and {type(self.base).__name__} keeps "
                "no momentum_buffer and no exp_avg for a parameter; wrap SGD, Adam or AdamW."
            )
        momentum: Tensor | None = state.get("momentum_buffer", state.get("exp_avg"))
        return momentum

    def _sign(self, group: dict[str, Any]) -> float:
        return -1.0  # towards the coming step, which the base's momentum leads down, or up

    def _complete_groups(self) -> None:
        super()._complete_groups()
        for group in self.param_groups:
            if not (group.get("momentum") or (group.get("betas") or (0.0,))[0]):
                raise ValueError(
                    f"MSAM climbs along the momentum of its base, and {type(self.base).__name__} "
                    "has none in a group; set its momentum, or its first beta, above 0."
                )
