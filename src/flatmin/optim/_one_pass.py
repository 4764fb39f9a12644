"""Variants that need no first pass: they climb along what they know, and a step costs one."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from flatmin.optim import _gradients as gradients
from flatmin.optim._closure import first_call
from flatmin.optim._in_ball import InBall


class OnePass(InBall, ABC):
    """A variant whose steps take one pass, in ``perturbed()``.

    Nothing of that pass is replayed or put back but the weights: what the forward writes (BatchNorm
    statistics) and draws is as in any training loop.
    """

    one_pass = True

    def _complete_groups(self) -> None:
        super()._complete_groups()
        if self.when is not None and self.when.memory:
            raise ValueError(
                f"{type(self.when).__name__} looks at the gradient of a first pass, which "
                f"{type(self).__name__} does not make; choose a rule that counts, such as Every(5)."
            )

    def _adopt(self, base: Optimizer) -> None:
        super()._adopt(base)
        self._replay = None

    def _refuse_parts(self) -> None:
        """Refuse: all parts of a batch would be perturbed alike, which one block does at once."""
        raise RuntimeError(
            f"{type(self).__name__} climbs along what it knows before the step, so every part of a "
            "batch has the same perturbation; put the passes of all parts into one block of "
            "perturbed()."
        )

    def _refuse_added(self) -> None:
        """Refuse to clear what an earlier block has made, and tell of a pass that is wasted."""
        visit, params = self._visit, gradients.parameters(self.param_groups)
        here = [p.grad for p in params if p.grad is not None]
        if visit.climbed and here:
            raise RuntimeError(
                "the gradients of the last block have not been stepped with, and entering "
                "perturbed() again would lose them; to accumulate put the passes of all parts into "
                "one block, to begin anew call zero_grad()."
            )
        if not visit.used and any(gradients.is_anything(grad) for grad in here):
            visit.tell(
                f"gradients were there when perturbed() was entered, and {type(self).__name__} "
                "drops them unused: it needs no first pass, so leave that out."
            )
        visit.forget()

    def _evaluate(self, closure: Callable[[], Any]) -> Any:
        """Run the only pass of a closure."""
        if not self.due:
            with torch.enable_grad():
                return closure()
        visit, params = self._visit, gradients.parameters(self.param_groups)
        earlier: dict[Tensor, Tensor] = {}
        gradients.set_aside(self.param_groups, earlier)
        with torch.enable_grad(), self.perturbed():
            gradients.bring_back(earlier)  # a closure that makes none has those stepped with
            loss, made, added = first_call(closure, params, visit)
            if added:
                raise RuntimeError(
                    "the closure added to gradients that were there before step(), and were made "
                    "elsewhere than at the perturbed point. Clear the gradients in the closure; to "
                    "accumulate, put the passes of all parts into one block of perturbed()."
                )
        visit.climbed = made
        return loss
