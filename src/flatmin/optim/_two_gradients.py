"""Variants that step with what they make of both gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from flatmin.optim import _sharded
from flatmin.optim._in_ball import InBall
from flatmin.optim._inner import inner
from flatmin.optim._memory import locals_of, own_gradients


class TwoGradients(InBall, ABC):
    """A variant that steps with the second gradient, changed by what the first one was.

    Every norm and inner product is over all parameters in the ball that have both gradients; the
    others are stepped with as SAM would.
    """

    @abstractmethod
    def _mix(self, params: list[Tensor], g: list[Tensor], s: list[Tensor]) -> None:
        """Change the second gradients ``s``, given the first ones ``g``: this process's parts.

        The first ones are this variant's own, and may be changed too.
        """

    @contextmanager
    def _combine(self) -> Iterator[None]:
        first = self._first() if self._visit.share else {}
        yield
        both = [p for p in first if p.grad is not None]
        g, s = locals_of(first[p] for p in both), locals_of(self._second(both))
        if both:
            self._refuse_halves(both, g, s)
            with torch.no_grad():
                self._mix(both, g, s)

    def _first(self) -> dict[Tensor, Tensor]:
        """The gradients of the first pass, to be written to: copied where others look at them."""
        inside = [p for group in self.param_groups if self._climbs(group) for p in group["params"]]
        return own_gradients(inside)

    def _second(self, params: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of the second pass, to be written to."""
        second = []
        for p in params:
            if p.grad is not None:
                if (whole := _sharded.summed(p.grad, p)) is not p.grad:
                    p.grad = whole
                second.append(p.grad)
        return second

    def _refuse_halves(
        self, params: Sequence[Tensor], g: Sequence[Tensor], s: Sequence[Tensor]
    ) -> None:
        """Refuse a first gradient of this process with a second one of all.

        Raises:
            RuntimeError: If one is synchronized, and the other one is not.
        """
        if self._visit.synced or not (team := _sharded.replicas(self.model)):
            return
        device = params[0].device
        norms = torch.tensor([inner(params, t, t) for t in (g, s)], device=device)
        first, second = _sharded.differ(norms, team)
        if first and not second:
            raise RuntimeError(
                f"{type(self).__name__} steps with both gradients, and the first one is that of "
                "each process alone, while the second one is their mean, so the replicas would "
                "drift apart; make the first pass without no_sync()."
            )
        self._visit.synced = not first
