"""AdamW for stacked networks that differ in learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

FIRST, SECOND, TINY = 0.9, 0.999, 1e-8  # torch's defaults


class MemberwiseAdamW(torch.optim.Optimizer):
    """AdamW with a learning rate and a decoupled weight decay for each member of a stack.

    Args:
        params: Stacked parameters, each ``[members, ...]``.
        rates: Learning rates, ``[members]``; ``lr`` of the group, which schedules change, is a
            factor before them.
        decays: Weight decays, ``[members]``.

    Source:
        Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.
    """

    def __init__(self, params: Iterable[nn.Parameter], rates: Tensor, decays: Tensor) -> None:
        super().__init__(params, {"lr": 1.0})
        self.rates, self.decays = rates, decays

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step."""
        for group in self.param_groups:
            for p in group["params"]:
                state, wide = self.state[p], (-1, *[1] * (p.ndim - 1))
                if not state:
                    state.update(step=0, first=torch.zeros_like(p), second=torch.zeros_like(p))
                state["step"] += 1
                first = state["first"].lerp_(p.grad, 1 - FIRST)
                second = state["second"].mul_(SECOND).addcmul_(p.grad, p.grad, value=1 - SECOND)
                size = (second / (1 - SECOND ** state["step"])).sqrt_().add_(TINY)
                rates = (group["lr"] * self.rates).reshape(wide)
                p.mul_(1 - rates * self.decays.reshape(wide))
                p.sub_(rates / (1 - FIRST ** state["step"]) * first / size)
