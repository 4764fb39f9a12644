"""The wrapper that lets any torch optimizer take its gradient at the worst nearby point."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from flatmin.optim import _gradients as gradients
from flatmin.optim._blocks import Blocks
from flatmin.optim._closure import first_call
from flatmin.optim._report import StepReport


class Perturbed(Blocks):
    """A base optimizer that steps with the gradient of a perturbed point.

    It is a torch optimizer, so whatever works on one (schedulers, ``GradScaler``, checkpoints)
    works on it. What a variant may answer differently is in ``Variant``.
    """

    @property
    def in_second_pass(self) -> bool:
        """Whether the weights are perturbed now, as they are inside ``perturbed()``.

        What a training step logs or counts it does in both passes; this tells them apart.

        Returns:
            True in the body of ``perturbed()``, and in the second call of a closure.

        Example:
            >>> from flatmin import SAM
            >>> x = torch.nn.Parameter(torch.ones(1))
            >>> optimizer = SAM(torch.optim.SGD([x], lr=0.1))
            >>> x.square().sum().backward()
            >>> with optimizer.perturbed():
            ...     inside = optimizer.in_second_pass
            ...     x.square().sum().backward()
            >>> inside, optimizer.in_second_pass
            (True, False)
        """
        return self._visit.open

    @property
    def report(self) -> StepReport | None:
        """Norms and rise of the last climb; None before the first.

        Returns:
            A ``StepReport``; reading it starts no computation and waits for no device, except that
            ``rise`` is a tensor, which does when it is turned into a number.

        Example:
            >>> from flatmin import SAM
            >>> x = torch.nn.Parameter(torch.ones(1))
            >>> optimizer = SAM(torch.optim.SGD([x], lr=0.1), rho=0.5)
            >>> def closure():
            ...     optimizer.zero_grad()
            ...     loss = x.square().sum()
            ...     loss.backward()
            ...     return loss
            >>> _ = optimizer.step(closure)
            >>> report = optimizer.report
            >>> report.grad_norm, report.shift_norm, report.rise.item()
            (2.0, 0.5, 1.25)
        """
        return self._visit.report

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the weights with the base optimizer.

        Args:
            closure: Clears the gradients, evaluates the loss, calls ``backward`` and returns the
                loss; called twice, at the weights and at the perturbed point. One that makes no
                gradients is called once, and so is any in a step that is not ``due``. Without it,
                the gradients in ``.grad`` are used as they are: those that the body of
                ``perturbed()`` made, or, without such a block, ordinary ones.

        Returns:
            What the first call of ``closure`` returned, the loss at the weights; None without one.

        Raises:
            TypeError: If ``closure`` is no function, such as the loss that it returns.
            RuntimeError: If called inside ``perturbed()`` or ``micro_batches()``; if ``closure``
                adds to gradients that were there before, which a second call could not bring back.
        """
        self._refuse_inside("step()")
        visit, groups = self._visit, self.param_groups
        if visit.parts is not None:
            raise RuntimeError(
                "step() was called inside micro_batches(), where the gradients are not yet summed; "
                "leave the block first."
            )
        if closure is not None and not callable(closure):
            raise TypeError(
                "closure must be a function that makes the gradients and returns the loss, got a "
                f"{type(closure).__name__}; hand it over without calling it: step(closure)."
            )
        if visit.given_up:  # cleared otherwise than by our zero_grad()
            visit.reset()
        loss = self._evaluate(closure) if closure is not None else None
        if not visit.ever and gradients.any_in(groups) and self.due and self._has_learned():
            visit.tell(
                f"{type(self).__name__} has never been in perturbed(): this is a step of its base "
                "alone. Make the second pass in `with optimizer.perturbed():`, or give step() a "
                "closure; where the base alone is meant, set sam_rho to 0."
            )
        if visit.wasted and not gradients.any_in(groups):
            visit.wasted = False
            visit.tell(
                "step() found no gradient, so nothing moves: those of the block were cleared "
                "before it; call zero_grad() ahead of the first pass alone."
            )
        failure = visit.failure
        if visit.climbed and not failure and not self._are_finite():
            failure = "the gradient at the perturbed point was not finite"
        if visit.climbed and failure:
            warnings.warn(
                f"{type(self).__name__} skipped a step: {failure}. The weights are unchanged.",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            self._step()
        visit.reset()
        visit.watch(gradients.parameters(groups))
        if self._replay:
            self._replay.clear()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, as the base optimizer does.

        Inside ``micro_batches()`` the parts that are complete stay.

        Args:
            set_to_none: Whether to drop them (default) or to fill them with zeros.
        """
        self.base.zero_grad(set_to_none)
        visit = self._visit
        visit.cleared, visit.zeros = True, not set_to_none
        if visit.open:
            return
        if not visit.parts:
            visit.wasted = visit.climbed
            visit.reset()
            visit.earlier.clear()
        visit.forget()
        if self._replay:
            self._replay.forget()

    def _evaluate(self, closure: Callable[[], Any]) -> Any:
        """Run both passes of a closure; give what the first call returned."""
        visit, params = self._visit, gradients.parameters(self.param_groups)
        with torch.enable_grad():
            loss, made, added = first_call(closure, params, visit)
            if not made or not self.due:
                return loss
            if added:
                raise RuntimeError(
                    "the closure added to gradients that were there before step(), and its second "
                    "call would make only its own part again. Clear the gradients in the closure; "
                    "to accumulate, put the two passes of each part into `with "
                    "optimizer.micro_batches():` and call step() without a closure."
                )
            with self.perturbed():
                worst = closure()
        visit.add_rise(loss, worst)
        return loss
