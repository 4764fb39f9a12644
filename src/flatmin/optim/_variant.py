"""The four questions that a variant answers, each by a value or by one overridden method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.optim import Optimizer

from flatmin.ball import Ball
from flatmin.optim import _gradients as gradients
from flatmin.optim._climb import ascend, squared_norm
from flatmin.optim._pieces import Piece, names_of, pieces_of
from flatmin.optim._replay import Replay
from flatmin.optim._restore import Saved
from flatmin.optim._visit import Visit
from flatmin.optim._wrapper import Wrapper, check_model, checked_base
from flatmin.optim.when import Moment, When


class Variant(Wrapper, ABC):
    """A wrapper that knows how to climb.

    In which neighbourhood: ``_ball``. Along what: ``_direction``. With which gradient to step:
    ``_combine``. When: ``when``, a value.
    """

    one_pass: ClassVar[bool] = False
    """Whether a step takes one pass, inside ``perturbed()``, and no other before it."""

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
        _check_when(when)
        self.fused = fused
        self.model = model
        self.when = when
        # What the rule counts is a setting of the groups, so that it is saved with them.
        counts = {} if when is None else {"sam_steps": 0, **when.memory}
        self._group_defaults = {**group_defaults, **counts}
        self._visit = Visit()
        self._adopt(base)
        self._complete_groups()

    @abstractmethod
    def _ball(self, group: dict[str, Any]) -> Ball:
        """In which neighbourhood: that of one parameter group."""

    def _climbs(self, group: dict[str, Any]) -> bool:
        """Whether a group is in the ball."""
        return bool(self._ball(group).rho != 0)

    def _direction(self, param: Tensor, state: Mapping[str, Any]) -> Tensor | None:
        """Along what to climb: the gradient of the first pass, if there is one.

        ``state`` is what the base keeps of this parameter, and what the variant keeps there.
        """
        return param.grad

    def _sign(self, group: dict[str, Any]) -> float:
        """Which way along it the loss of a group gets worse."""
        return -1.0 if group.get("maximize") else 1.0

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
        return self._share() > 0.0

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """No; asked by ``GradScaler`` before it lets the optimizer step.

        A fused base would unscale gradients itself, if it were handed the scale; ours come first.
        """
        if self.when is not None and self.when.memory:
            self._visit.tell(
                f"{type(self.when).__name__} compares the gradients of different steps, and a "
                "GradScaler changes their scale; train in bfloat16, which needs none, or choose a "
                "rule that counts."
            )
        return False

    def _refuse_parts(self) -> None:
        """Refuse a perturbation for each part of a batch, where gradients of batches are compared.

        Raises:
            RuntimeError: If they are.
        """
        if self.when is not None and self.when.memory:
            raise RuntimeError(
                f"{type(self.when).__name__} compares whole batches, and micro_batches() perturbs "
                "for each part of one; make all first passes before one block of perturbed() and "
                "all second ones in it, or choose a rule that counts."
            )

    def _share(self) -> float:
        """The part of rho with which this step perturbs; 0 if it is not due."""
        if self._visit.open:
            return self._visit.share
        if not any(map(self._climbs, self.param_groups)):
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
        groups = [group for group in self.param_groups if self._climbs(group)]
        if not gradients.any_in(groups):
            raise RuntimeError(
                f"{type(self.when).__name__} looks at the gradient of the first pass, and there is "
                "none: ask `due`, and enter perturbed(), after that pass."
            )
        self._visit.square = squared_norm(groups)
        return self._visit.square

    def _step(self) -> None:
        """Let the base step with the gradients in place, and count that, if anything does."""
        self.base.step()
        if self.when is None:
            return
        square = self._visit.square
        learned: Mapping[str, float] = {}
        if square is not None or gradients.any_in(self.param_groups):
            look = self._look if square is None else lambda: square
            learned = self.when.learned(self._moment(look))
        for group in self.param_groups:
            group.update(learned, sam_steps=group["sam_steps"] + 1)

    def _climb(self, saved: Saved) -> None:
        """Shift the weights, unless the gradient is not finite or the step is not due."""
        visit, states = self._visit, self.state
        pieces: list[Piece] = []
        outside = []
        for group in self.param_groups:
            if visit.share == 0.0 or not self._climbs(group):
                outside.append(group)
                continue
            ball = self._ball(group)
            if visit.share != 1.0:
                ball = replace(ball, rho=ball.rho * visit.share)
            pieces += pieces_of(
                group["params"],
                lambda p: self._direction(p, states.get(p, {})),
                ball,
                self._sign(group),
                self._names(group),
                fused=self.fused,
            )
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


def _check_when(when: object) -> None:
    """Refuse what is no rule.

    Raises:
        TypeError: If it is something else than a rule or None.
    """
    if when is not None and not isinstance(when, When):
        got = when.__name__ if isinstance(when, type) else repr(when)
        raise TypeError(f"when must be a rule such as Every(5), got {got}; None is every step.")
