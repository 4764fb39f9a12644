"""The blocks of a step: ``perturbed()``, and ``micro_batches()`` around several of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch._compile import _disable_dynamo
from torch.optim import Optimizer

from flatmin.ball import Ball
from flatmin.optim import _gradients as gradients
from flatmin.optim._climb import ascend
from flatmin.optim._pieces import Piece, names_of, pieces_of
from flatmin.optim._replay import Replay
from flatmin.optim._restore import Saved
from flatmin.optim._visit import Visit
from flatmin.optim._wrapper import Wrapper, check_base, check_model


class Blocks(Wrapper, ABC):
    """A wrapper that lends its weights to a perturbed point, and takes them back."""

    @_disable_dynamo  # a compiled function may build its optimizer
    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None,
        fused: bool,
        **group_defaults: float,
    ) -> None:
        # ``group_defaults`` are set in each group that does not have its own.
        check_base(base, type(self).__name__)
        check_model(model)
        self.fused = fused
        self.model = model
        self._group_defaults = group_defaults
        self._visit = Visit()
        self._adopt(base)
        self._complete_groups()

    @abstractmethod
    def _ball(self, group: dict[str, Any]) -> Ball:
        """The neighbourhood of one parameter group."""

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        r"""Climb to the worst nearby point; put the weights back on leaving.

        On entering, the gradients in ``.grad`` give the direction, the weights move by the shift
        ε of ``Ball.shift`` and the gradients are cleared. The body computes the gradients there, by
        one backward pass or many. On leaving, however it is left, every weight is copied back, bit
        for bit, into the same memory. ``step()`` then updates the weights with the gradients that
        the body made.

        Groups form one ball: ε solves :math:`\max \langle g, \epsilon\rangle` under
        :math:`\|(u_1/\rho_1, u_2/\rho_2, \ldots)\|_p \le 1`. With one rho this is the usual ball; a
        group with ``rho = 0`` takes no part in it, nor in its norm.

        If the gradient is not finite, the weights stay where they are, and the step that follows is
        skipped: by ``GradScaler``, which finds a non-finite gradient and lowers its scale, or else
        by ``step()`` with a warning. A body that makes no gradient has the step skipped too.

        Yields:
            Nothing; the body runs at the perturbed point.

        Raises:
            RuntimeError: If entered inside itself; if the gradients of the last block were added to
                and not stepped with, since they would be lost; if the body changed the shape of a
                parameter, or made gradients that carry a graph.

        Example:
            The loss x² has gradient 2 at x = 1; at distance 0.5 uphill it has gradient 3.

            >>> from flatmin import SAM
            >>> x = torch.nn.Parameter(torch.ones(1))
            >>> optimizer = SAM(torch.optim.SGD([x], lr=0.1), rho=0.5)
            >>> x.square().sum().backward()
            >>> with optimizer.perturbed():
            ...     x.square().sum().backward()
            >>> optimizer.step()
            >>> round(x.item(), 6)
            0.7

        Source:
            Foret et al. 2021, arXiv:2010.01412, algorithm 1.
        """
        visit, saved = self._visit, Saved()
        if visit.open:
            raise RuntimeError(
                "perturbed() was entered inside itself; leave the first block before the next."
            )
        self._refuse_added()
        before = (False, None) if visit.parts is None else (visit.climbed, visit.failure)
        visit.failure = before[1]
        visit.open, visit.climbed, visit.ever = True, True, True
        try:
            with self._replay.second_pass() if self._replay else nullcontext():
                try:
                    try:
                        with torch.no_grad():
                            self._climb(saved)
                        given, moved = gradients.any_in(self.param_groups), bool(saved.old)
                        gradients.drop(self.param_groups)
                        with gradients.spoiled(self.param_groups, visit.failure):
                            yield
                    finally:
                        saved.restore()
                finally:
                    saved.restore()  # the rest, if the way back was interrupted
            self._take(given=given, moved=moved)
        except BaseException:
            # Half a gradient must not become a step.
            gradients.drop(self.param_groups)
            visit.climbed, visit.failure = before
            raise
        finally:
            visit.open = False

    @contextmanager
    def micro_batches(self) -> Iterator[None]:
        r"""Sum the gradients of several ``perturbed()`` blocks, each with its own perturbation.

        With parts of m examples this trains on m-sharpness: every part climbs by its own gradient,

        .. math:: \nabla L_m(w) = \sum_k \nabla L_k(w + \epsilon_k), \quad
            \epsilon_k \text{ from } \nabla L_k(w)

        Divide each loss by the number of parts for a mean. On leaving, ``.grad`` holds the sum,
        added to what it held before, and what follows (unscale, clip, ``step()``) is as usual. So
        the parts may come in one of these blocks, or one by one in blocks of their own.

        Yields:
            Nothing; the body holds the passes, part by part.

        Raises:
            RuntimeError: If entered inside itself or inside ``perturbed()``.

        Example:
            Two parts of the loss x², each climbing from 1 to 1.5, where x²/2 has gradient 1.5.

            >>> from flatmin import SAM
            >>> x = torch.nn.Parameter(torch.ones(1))
            >>> optimizer = SAM(torch.optim.SGD([x], lr=0.1), rho=0.5)
            >>> with optimizer.micro_batches():
            ...     for _ in range(2):
            ...         (x.square().sum() / 2).backward()
            ...         with optimizer.perturbed():
            ...             (x.square().sum() / 2).backward()
            >>> x.grad.item()
            3.0

        Source:
            Foret et al. 2021, arXiv:2010.01412, section 4.1.
        """
        visit = self._visit
        self._refuse_inside("micro_batches()")
        if visit.parts is not None:
            raise RuntimeError("micro_batches() was entered inside itself; one block is enough.")
        visit.forget()
        visit.parts = {}
        gradients.set_aside(self.param_groups, visit.earlier)
        if not visit.earlier:
            visit.reset()
        before = visit.climbed, visit.failure
        try:
            yield
        except BaseException:
            gradients.drop(self.param_groups)
            visit.climbed, visit.failure = before
            raise
        else:
            gradients.bring_back(visit.parts)
        finally:
            visit.parts = None
            gradients.bring_back(visit.earlier)
        visit.watch(gradients.parameters(self.param_groups))

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

    def _climbs(self) -> bool:
        """Whether any group has a ball to climb in."""
        return any(self._ball(group).rho != 0 for group in self.param_groups)

    def _climb(self, saved: Saved) -> None:
        """Shift the weights, unless the gradient is not finite."""
        visit = self._visit
        pieces: list[Piece] = []
        outside = []
        for group in self.param_groups:
            ball = self._ball(group)
            if ball.rho == 0:
                outside.append(group)
            else:
                pieces += pieces_of(group, ball, self._names(group), fused=self.fused)
        visit.report, failure = ascend(pieces, outside, self.param_groups, saved)
        visit.failure = failure or visit.failure

    def _refuse_added(self) -> None:
        """Refuse to climb along, and then to clear, what an earlier block has made."""
        visit = self._visit
        if visit.added and visit.climbed:
            raise RuntimeError(
                "the gradients of the last block were added to before step(), and entering "
                "perturbed() again would lose them. For a perturbation per micro-batch put its two "
                "passes into `with optimizer.micro_batches():`; for one perturbation make all "
                "first passes before the block and all second ones in it; to begin anew call "
                "zero_grad()."
            )
        if visit.added:
            visit.tell(
                "the gradients of the last step were still there when new ones came, so the climb "
                "goes along their sum; call zero_grad() before each step."
            )
        visit.forget()

    def _take(self, *, given: bool, moved: bool) -> None:
        """Look at the gradients that the body has left."""
        visit, params = self._visit, gradients.parameters(self.param_groups)
        if moved and any(p.grad is not None and p.grad.requires_grad for p in params):
            raise RuntimeError(
                "the gradients of the second pass carry a graph (create_graph=True), which leads "
                "to weights that have been put back: an optimizer that differentiates again, such "
                "as AdaHessian, cannot be wrapped. Around any other, leave create_graph out."
            )
        made = gradients.any_in(self.param_groups)
        if given and not made:
            visit.failure = "the body of perturbed() made no gradient"
        if made and not given and self._climbs():
            visit.tell(
                "perturbed() found no gradient to climb along, so its body ran at the weights; "
                "make the first pass before the block, and clear gradients only before that."
            )
        if visit.parts is not None:
            gradients.set_aside(self.param_groups, visit.parts)
        else:
            visit.watch(params)
