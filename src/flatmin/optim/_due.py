"""Whether a step perturbs, how far, and what is counted of it."""

from __future__ import annotations

import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer

from flatmin.optim import _gradients as gradients
from flatmin.optim._climb import squared_norm
from flatmin.optim._visit import Visit
from flatmin.optim._wrapper import Wrapper
from flatmin.optim.when import Moment, When


class Due(Wrapper, ABC):
    """A wrapper that knows in which steps to perturb: by its groups, and by a rule."""

    when: When | None

    @abstractmethod
    def _climbs(self, group: dict[str, Any]) -> bool:
        """Whether a group is in the ball."""

    @property
    def due(self) -> bool:
        """Whether this step perturbs, as some rho is not zero and the rule ``when`` says so.

        A loop that asks first saves the second pass of a step that is not due; a closure always
        does. In such a step ``perturbed()`` moves nothing, and its body makes the gradient again.

        Returns:
            True until the step is taken, if it is due.

        Example:
            >>> import torch
            >>> from flatmin.optim import SAM, Every
            >>> x = torch.nn.Parameter(torch.ones(1))
            >>> optimizer = SAM(torch.optim.SGD([x], lr=0.1), when=Every(2))
            >>> def closure():
            ...     optimizer.zero_grad()
            ...     loss = x.square().sum()
            ...     loss.backward()
            ...     return loss
            >>> dues = []
            >>> for _ in range(4):
            ...     dues.append(optimizer.due)
            ...     _ = optimizer.step(closure)
            >>> dues
            [True, False, True, False]
        """
        return self._share() > 0.0

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """No; asked by ``GradScaler`` before it lets the optimizer step.

        A fused base would unscale gradients itself, if it were handed the scale; ours come first.
        """
        if name := self._comparing():
            self._visit.tell(
                f"{name} compares the gradients of different steps, and a GradScaler, if one is "
                "used, changes their scale; train in bfloat16, which needs none."
            )
        return False

    def _refuse_parts(self) -> None:
        """Refuse a perturbation for each part of a batch, where gradients of batches are compared.

        Raises:
            RuntimeError: If they are.
        """
        if name := self._comparing():
            raise RuntimeError(
                f"{name} compares whole batches, and micro_batches() perturbs for each part of "
                "one; make all first passes before one block of perturbed(), and all second ones "
                "in it."
            )

    def _comparing(self) -> str:
        """The name of what compares the gradients of different steps; empty if nothing does."""
        return type(self.when).__name__ if self.when is not None and self.when.memory else ""

    def _share(self) -> float:
        """The part of rho with which this step perturbs; 0 if it is not due."""
        if self._visit.open:
            return self._visit.share
        if not self._inside():
            return 0.0
        if self.when is None:
            return 1.0
        now = self._moment(self._look)
        return self.when.share(now) if self.when.due(now) else 0.0

    def _moment(self, look: Callable[[], float]) -> Moment:
        group = self.param_groups[0]
        rule = self.when.memory if self.when is not None else {}
        return Moment(group["sam_steps"], {key: group[key] for key in rule}, look)

    def _look(self) -> float:
        """Squared norm of the gradient, kept for when the step is counted."""
        inside = self._inside()
        if not gradients.any_in(inside):
            raise RuntimeError(
                f"{type(self.when).__name__} looks at the gradient of the first pass, and there is "
                "none: ask `due`, and enter perturbed(), after that pass."
            )
        self._visit.square = squared_norm(inside)
        return self._visit.square

    def _settle(self) -> None:
        check_when(self.when)
        counts = {} if self.when is None else {"sam_steps": 0, **self.when.memory}
        if not counts.keys() <= self._group_defaults.keys():  # a rule was set afterwards
            self._group_defaults = {**counts, **self._group_defaults}
        super()._settle()

    def _inside(self) -> list[dict[str, Any]]:
        self._settle()
        return [group for group in self.param_groups if self._climbs(group)]

    def _step(self) -> None:
        """Let the base step with the gradients in place, and count that, if anything does."""
        self.base.step()
        if self.when is None:
            return
        square, inside = self._visit.square, self._inside()
        learned: Mapping[str, float] = {}
        if square is not None or gradients.any_in(inside):
            look = self._look if square is None else lambda: square
            learned = self.when.learned(self._moment(look))
        for group in self.param_groups:
            group.update(learned, sam_steps=group["sam_steps"] + 1)
        self._visit.taken += bool(inside)

    def _expect_more(self) -> None:
        """Say nothing of a rule that was not due yet: the training is cut off, to go on later."""
        self._visit.taken = 0

    def _adopt(self, base: Optimizer) -> None:
        super()._adopt(base)
        if self.when is not None:
            weakref.finalize(self, _tell_of_none, self.when, self._visit)


def check_when(when: object) -> None:
    """Refuse what is no rule.

    Raises:
        TypeError: If it is something else than a rule or None.
    """
    if when is not None and not isinstance(when, When):
        got = when.__name__ if isinstance(when, type) else repr(when)
        raise TypeError(f"when must be a rule such as Every(5), got {got}; None is every step.")


def _tell_of_none(when: When, visit: Visit) -> None:
    """Warn, when the optimizer is gone, of a training in which its rule had no effect."""
    if visit.taken and not visit.perturbed:
        warnings.warn(
            f"{when} was due in none of the {visit.taken} steps that were taken: these were steps "
            "of the base alone; count in steps of the optimizer, and in those that are trained.",
            RuntimeWarning,
            stacklevel=2,
        )
