"""A variant whose neighbourhood is a ball in any scale: what the family has in common."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from flatmin.ball import Ball
from flatmin.optim._perturbed import Perturbed
from flatmin.optim.radius import FollowingLR
from flatmin.optim.when import When
from flatmin.scale import Scale


class InBall(Perturbed, ABC):
    """A variant in the ball of radius ``sam_rho``, of order p, in a scale."""

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float | FollowingLR,
        *,
        scale: Scale,
        p: float,
        model: nn.Module | None,
        fused: bool,
        when: When | None,
        **group_defaults: float,
    ) -> None:
        if not callable(scale) or isinstance(scale, type):
            raise TypeError(
                f"scale must be a scale such as Elementwise(0.01, biases=False), got {scale!r}."
            )
        self.p, self.scale = p, scale
        super().__init__(base, model=model, fused=fused, when=when, sam_rho=rho, **group_defaults)

    def _ball(self, group: dict[str, Any]) -> Ball:
        return Ball(self._rho(group), self.p, self.scale)

    def _complete_groups(self) -> None:
        super()._complete_groups()
        biases = getattr(self.scale, "biases", True)
        if not biases and any(None in self._names(group) for group in self.param_groups):
            raise ValueError(
                "the scale leaves biases unscaled (biases=False) and tells them by name, but the "
                "base optimizer's parameters have no names; build it from "
                "model.named_parameters(), give model=, or set biases=True."
            )
