"""The blocks of a step: ``perturbed()``, and ``micro_batches()`` around several of them."""

from __future__ import annotations

import threading
from abc import ABC
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from flatmin.optim import _gradients as gradients
from flatmin.optim._restore import Saved, explain
from flatmin.optim._variant import Variant


class _Here(threading.local):
    """How many blocks are open in this thread."""

    open = 0


_here = _Here()


class Blocks(Variant, ABC):
    """A wrapper that lends its weights to a perturbed point, and takes them back."""

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        r"""Climb to the worst nearby point; put the weights back on leaving.

        On entering, the gradients in ``.grad`` give the direction, the weights move by the shift
        ε of ``Ball.shift`` and the gradients are cleared. The body computes the gradients there, by
        one backward pass or many. On leaving, however it is left, every weight is what it was, bit
        for bit, in the same memory. On a CPU a large one, at whose memory nobody else looks, lies
        elsewhere meanwhile, in that of its first gradient if that is spent. ``step()`` then updates
        the weights with the gradients that the body made.

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
                "perturbed() was entered inside itself; leave the first block before the next, and "
                "write none into a closure, for step(closure) makes both passes."
            )
        self._refuse_added()
        before = (False, None) if visit.parts is None else (visit.climbed, visit.failure)
        visit.failure = before[1]
        visit.share = self._share()
        visit.perturbed |= visit.share > 0
        visit.aside.clear()
        visit.open, visit.climbed, visit.ever, visit.wasted = True, True, True, False
        try:
            with (
                self._one_ball(),
                self._replay.second_pass() if self._replay else nullcontext(),
                self._combine(),
            ):
                try:
                    try:
                        with torch.no_grad():
                            self._climb(saved)
                        given = gradients.given(self.param_groups)
                        gradients.drop(self.param_groups)
                        saved.move()
                        moved = bool(saved)
                        with gradients.spoiled(self.param_groups, visit.failure):
                            yield
                    finally:
                        saved.restore()
                finally:
                    saved.restore()  # the rest, if the way back was interrupted
            self._take(given, moved=moved)
        except BaseException as error:
            explain(error)
            # Half a gradient must not become a step.
            gradients.drop(self.param_groups)
            visit.aside.clear()
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
        self._refuse_parts()
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

    @contextmanager
    def _one_ball(self) -> Iterator[None]:
        """Warn where the block stands in that of another optimizer."""
        if _here.open:
            self._visit.tell(
                "perturbed() was entered inside that of another optimizer: these are two balls, "
                "and each gradient is taken where the other one has moved the weights to. For one "
                f"ball over both write {type(self).__name__}([first, second])."
            )
        _here.open += 1
        try:
            yield
        finally:
            _here.open -= 1

    def _refuse_added(self) -> None:
        """Refuse to climb along, and then to clear, what an earlier block has made."""
        visit = self._visit
        if visit.is_unscaled:
            raise RuntimeError(
                "the gradients were unscaled before perturbed(), and a GradScaler unscales once a "
                "step: those that the block makes would be stepped with as they are scaled. The "
                "climb needs no unscaling; call unscale_() after the block, if at all."
            )
        if visit.added and visit.climbed:
            raise RuntimeError(
                "the gradients of the last block were added to before step(), and entering "
                "perturbed() again would lose them. For a perturbation per micro-batch put its two "
                "passes into `with optimizer.micro_batches():`; for one perturbation make all "
                "first passes before the block and all second ones in it; to begin anew call "
                "zero_grad()."
            )
        if visit.left:
            raise RuntimeError(
                "the gradients of the last block are still there, and entering perturbed() again "
                "would lose them. For a perturbation per task put its two passes into `with "
                "optimizer.micro_batches():`; a closure needs no block, for step(closure) makes "
                "both passes; to begin anew call zero_grad()."
            )
        if visit.added:
            visit.tell(
                "the gradients of the last step were still there when new ones came, so the climb "
                "goes along their sum; call zero_grad() before each step."
            )
        visit.forget()

    def _take(self, given: Mapping[Tensor, torch.layout], *, moved: bool) -> None:
        """Look at the gradients that the body has left, where some were given."""
        visit, params = self._visit, gradients.parameters(self.param_groups)
        if moved and any(p.grad is not None and p.grad.requires_grad for p in params):
            raise RuntimeError(
                "the gradients of the second pass carry a graph (create_graph=True), which leads "
                "to weights that have been put back: an optimizer that differentiates again, such "
                "as AdaHessian, cannot be wrapped. Around any other, leave create_graph out."
            )
        made = gradients.any_in(self.param_groups)
        if made and visit.zeros:
            # By choice, for then what is unused decays and coasts in the base.
            gradients.fill(given)
        if given and not made:
            visit.failure = "the body of perturbed() made no gradient"
        if made and not given and visit.share and not self.one_pass:
            visit.tell(
                "perturbed() found no gradient to climb along, so its body ran at the weights; "
                "make the first pass before the block, and clear gradients only before that."
            )
        report, compared = visit.report, self.one_pass or self._comparing()
        if made and given and visit.share and not compared and report and not report.grad_norm:
            visit.tell(
                "the gradients at the weights were all zero, so the body of perturbed() ran at the "
                "weights; make the first pass before the block, and clear gradients only before "
                "that."
            )
        if made and given and self._replay and not self._replay.seen:
            visit.tell(
                "model= was given, but no gradient of the first pass came through a call of it, so "
                "the second one had other dropout masks and another state; give the module that "
                "the loop calls."
            )
        if made and given and self._replay and self._replay.left:
            visit.tell(
                "the first pass called the model more often than the second one did, which is to "
                "be at the perturbed weights and of the same examples: repeat each forward pass in "
                "the block, all parts of the batch. optimizer.zero_grad() drops those that do not "
                "count."
            )
        if visit.parts is not None:
            gradients.set_aside(self.param_groups, visit.parts)
        else:
            visit.watch(params)
