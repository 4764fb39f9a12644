"""The four questions that a variant answers, each by a value or by one overridden method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.optim import Optimizer

from flatmin.ball import Ball
from flatmin.optim._climb import ascend
from flatmin.optim._pieces import Piece, names_of, pieces_of
from flatmin.optim._replay import Replay
from flatmin.optim._restore import Saved
from flatmin.optim._visit import Visit
from flatmin.optim._wrapper import Wrapper, check_model, checked_base
from flatmin.optim.when import When


class Variant(Wrapper, ABC):
    """A wrapper that knows how to climb.

    In which neighbourhood: ``_ball``. Along what: ``_direction``. With which gradient to step:
    ``_combine``. When: ``when``, a value.
    """

    @_disable_dynamo  # a compiled function may build its optimizer
    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        *,
        model: nn.Module | None,
        fused: bool,
        when: When | None,
        **group_defaults: float,
    ) -> None:
        # ``group_defaults`` are set in each group that does not have its own.
        base = checked_base(base, type(self).__name__)
        check_model(model)
        self.fused = fused
        self.model = model
        self.when = when
        # The count is a setting of the groups, so that it is saved and loaded with them.
        self._group_defaults = (
            group_defaults if when is None else {**group_defaults, "sam_steps": 0}
        )
        self._visit = Visit()
        self._adopt(base)
        self._complete_groups()

    @abstractmethod
    def _ball(self, group: dict[str, Any]) -> Ball:
        """In which neighbourhood: that of one parameter group."""

    def _direction(self, param: Tensor) -> Tensor | None:
        """Along what to climb: the gradient of the first pass, if there is one."""
        return param.grad

    @contextmanager
    def _combine(self) -> Iterator[None]:
        """With which gradient to step: the one of the second pass.

        Entered with the first gradients in place, left with the second ones, which may be changed.
        """
        yield

    @property
    def due(self) -> bool:
        """Whether this step perturbs: some rho is not zero, and the rule ``when`` says so.

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
        if all(self._ball(group).rho == 0 for group in self.param_groups):
            return False
        return self.when is None or self.when.due(self.param_groups[0]["sam_steps"])

    def _climb(self, saved: Saved) -> None:
        """Shift the weights, unless the gradient is not finite or the step is not due."""
        visit = self._visit
        pieces: list[Piece] = []
        outside, due = [], self.due
        for group in self.param_groups:
            ball = self._ball(group)
            if ball.rho == 0 or not due:
                outside.append(group)
                continue
            names = self._names(group)
            pieces += pieces_of(group, self._direction, ball, names, fused=self.fused)
        visit.report, failure = ascend(pieces, outside, self.param_groups, saved)
        visit.failure = failure or visit.failure

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the replay, which hangs on the model that this instance knows."""
        return {key: value for key, value in super().__getstate__().items() if key != "_replay"}

    def _adopt(self, base: Optimizer) -> None:
        super()._adopt(base)
        self._replay = Replay(self.model) if self.model is not None else None

    def _complete_groups(self) -> None:
        super()._complete_groups()
        for group in self.param_groups:
            self._ball(group)

    def _names(self, group: dict[str, Any]) -> list[str | None]:
        """The name of each parameter of a group, where it has one."""
        return names_of(group, self.model)
