"""The four questions that a variant answers, each by a value or by one overridden method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.optim import Optimizer

from flatmin.ball import Ball
from flatmin.optim import _gradients as gradients
from flatmin.optim._base import check_model, checked_base
from flatmin.optim._climb import ascend
from flatmin.optim._cut import names_of, pieces_of
from flatmin.optim._due import Due, check_when
from flatmin.optim._groups import drop_filled, owners
from flatmin.optim._pieces import Piece
from flatmin.optim._replay import Replay
from flatmin.optim._restore import Saved
from flatmin.optim._visit import Visit
from flatmin.optim._workspace import Workspace
from flatmin.optim.radius import FollowingLR
from flatmin.optim.when import When


class Variant(Due, ABC):
    """A wrapper that knows how to climb.

    In which neighbourhood: ``_ball``. Along what: ``_directions``. With which gradient to
    step: ``_combine``. When: ``when``, a value.
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
        sam_rho: float | FollowingLR,
        **group_defaults: float,
    ) -> None:
        # ``group_defaults`` are set in each group that does not have its own.
        base = checked_base(base, type(self).__name__)
        check_model(model)
        check_when(when)
        self.fused = fused
        self.model = model
        self.when = when
        self.following = sam_rho if isinstance(sam_rho, FollowingLR) else None
        group_defaults["sam_rho"] = sam_rho.high if isinstance(sam_rho, FollowingLR) else sam_rho
        # What the rule counts is a setting of the groups, so that it is saved with them.
        counts = {} if when is None else {"sam_steps": 0, **when.memory}
        self._group_defaults = {**group_defaults, **counts}
        self._visit = Visit()
        self._adopt(base)
        drop_filled(base)
        self._complete_groups()

    @abstractmethod
    def _ball(self, group: dict[str, Any]) -> Ball:
        """In which neighbourhood: that of one parameter group."""

    def _rho(self, group: dict[str, Any]) -> float:
        """The radius of a group, in this step."""
        rho: float = group["sam_rho"]
        if self.following is None or rho == 0:
            return rho
        return self.following.at(float(group["lr"])) * (rho / self.following.high)

    def _climbs(self, group: dict[str, Any]) -> bool:
        """Whether a group is in the ball."""
        return bool(self._ball(group).rho != 0)

    def _directions(
        self, params: Sequence[Tensor], states: Mapping[Tensor, Any]
    ) -> Sequence[Tensor | None]:
        """Along what to climb: the gradients of the first pass, where there are any.

        ``states`` are what the base keeps of parameters, and what the variant keeps there.
        """
        return [p.grad for p in params]

    def _sign(self, group: dict[str, Any]) -> float:
        """Which way along it the loss of a group gets worse."""
        return -1.0 if group.get("maximize") else 1.0

    @contextmanager
    def _combine(self) -> Iterator[None]:
        """With which gradient to step: the one of the second pass.

        Entered with the first gradients in place, left with the second ones, which may be changed.
        """
        yield

    def _has_learned(self) -> bool:
        """Whether a backward has been; checkpoints step with zeros to see what the state is."""
        params = gradients.parameters(self.param_groups)
        return any(p.grad is not None and gradients.is_anything(p.grad) for p in params)

    def _are_finite(self) -> bool:
        """Whether all gradients to step with are, on all processes that share a parameter."""
        return gradients.all_finite(self.param_groups)

    def _climb(self, saved: Saved) -> None:
        """Shift the weights, unless the gradient is not finite or the step is not due."""
        visit, states = self._visit, self.state
        self._workspace.begin()
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
                partial(self._directions, group["params"], states),
                ball,
                self._sign(group),
                self._names(group),
                self._workspace,
                fused=self.fused,
            )
        visit.report, failure = ascend(pieces, outside, self.param_groups, saved)
        visit.failure = failure or visit.failure

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the replay, which hangs on the model, and room that is made anew."""
        left = {"_replay", "_workspace"}
        return {key: value for key, value in super().__getstate__().items() if key not in left}

    def free_workspace(self) -> None:
        """Give back the memory that is kept between steps on a CPU; the next step takes it again.

        Raises:
            RuntimeError: If called inside ``perturbed()``, where the old weights are in it.

        Example:
            >>> import torch
            >>> from flatmin import SAM
            >>> x = torch.nn.Parameter(torch.ones(1))
            >>> SAM(torch.optim.SGD([x], lr=0.1)).free_workspace()
        """
        self._refuse_inside("free_workspace()")
        self._workspace.clear()

    def _adopt(self, base: Optimizer) -> None:
        super()._adopt(base)
        self._workspace = Workspace()
        self._replay = None if self.model is None else Replay(self.model, owners(base))

    def _complete_groups(self) -> None:
        super()._complete_groups()
        for group in self.param_groups:
            self._ball(group)

    def _names(self, group: dict[str, Any]) -> list[str | None]:
        """The name of each parameter of a group, where it has one."""
        return names_of(group, self.model)
