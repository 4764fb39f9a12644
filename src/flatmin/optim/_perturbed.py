"""The wrapper that lets any torch optimizer take its gradient at the worst nearby point."""

from __future__ import annotations

import inspect
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin.ball import Ball
from flatmin.optim import _fused, _sharded
from flatmin.optim._climb import Piece, Saved, climb, cut, joint_support, restore, supports
from flatmin.optim._gradients import all_finite, local_gradients, set_aside, spoiled
from flatmin.optim._replay import Replay
from flatmin.optim._report import StepReport, report
from flatmin.optim._wrapper import Wrapper


class Perturbed(Wrapper, ABC):
    """A base optimizer that steps with the gradient of a perturbed point.

    It is a torch optimizer, so whatever works on one (schedulers, ``GradScaler``, checkpoints)
    works on it. A variant says by ``_ball`` which neighbourhood it climbs in.
    """

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None,
        fused: bool,
        **group_defaults: float,
    ) -> None:
        # ``group_defaults`` are set in each group that does not have its own.
        if isinstance(base, Perturbed) or not isinstance(base, Optimizer):
            got = base.__name__ if isinstance(base, type) else type(base).__name__
            raise TypeError(
                f"base must be an instance of an ordinary torch optimizer, got {got}; write "
                f"{type(self).__name__}(torch.optim.SGD(model.named_parameters(), lr=0.1))."
            )
        step = inspect.signature(type(base).step).parameters.get("closure")
        if step is not None and step.default is step.empty:
            raise TypeError(
                f"{type(base).__name__} needs a closure of its own to step, which would run at the "
                f"unperturbed weights; wrap an optimizer that steps with the gradients it is given."
            )
        if model is not None and not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
        self.fused = fused
        self.model = model
        self._group_defaults = group_defaults
        self._visit = _Visit()
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
        by ``step()`` with a warning.

        Yields:
            Nothing; the body runs at the perturbed point.

        Raises:
            RuntimeError: If entered inside itself.

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
        visit = self._visit
        if visit.open:
            raise RuntimeError(
                "perturbed() was entered inside itself; leave the first block before the next."
            )
        visit.open, visit.climbed = True, True
        if visit.parts is None:
            visit.failure = None
        saved: Saved = []
        try:
            with self._replay.second_pass() if self._replay else nullcontext():
                with torch.no_grad():
                    self._climb(saved)
                self.base.zero_grad(set_to_none=True)
                with spoiled(self.param_groups) if visit.failure else nullcontext():
                    yield
        except BaseException:
            # Half a gradient must not become a step.
            self.base.zero_grad(set_to_none=True)
            visit.climbed, visit.failure = False, None
            raise
        finally:
            visit.open = False
            with torch.no_grad():
                restore(saved)
        if visit.parts is not None:
            set_aside(self.param_groups, visit.parts)

    @contextmanager
    def micro_batches(self) -> Iterator[None]:
        r"""Sum the gradients of several ``perturbed()`` blocks, each with its own perturbation.

        With parts of m examples this trains on m-sharpness: every part climbs by its own gradient,

        .. math:: \nabla L_m(w) = \sum_k \nabla L_k(w + \epsilon_k), \quad
            \epsilon_k \text{ from } \nabla L_k(w)

        Divide each loss by the number of parts for a mean. On leaving, ``.grad`` holds the sum, and
        what follows (unscale, clip, ``step()``) is as usual.

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
        self._refuse_inside("micro_batches")
        if visit.parts is not None:
            raise RuntimeError("micro_batches() was entered inside itself; one block is enough.")
        parts = visit.parts = {}
        visit.failure = None
        try:
            yield
        except BaseException:
            self.base.zero_grad(set_to_none=True)
            visit.climbed, visit.failure = False, None
            raise
        finally:
            visit.parts = None
        for param, grad in parts.items():
            param.grad = grad if param.grad is None else param.grad.add_(grad)

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
                loss; called twice, at the weights and at the perturbed point. Without it, the
                gradients in ``.grad`` are used as they are: those that the body of ``perturbed()``
                made, or, without such a block, ordinary ones.

        Returns:
            The loss at the weights, from the first call of ``closure``; None without one.

        Raises:
            RuntimeError: If called inside ``perturbed()``.
            TypeError: If ``closure`` makes gradients and returns nothing.
        """
        self._refuse_inside("step")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
                if loss is None and local_gradients(self.param_groups):
                    raise TypeError(
                        "the closure returned nothing; let it return the loss that it computed."
                    )
                with self.perturbed():
                    worst = closure()
            self._visit.add_rise(loss, worst)
        visit = self._visit
        failure = visit.failure
        if visit.climbed and not failure and not all_finite(self.param_groups):
            failure = "the gradient at the perturbed point was not finite"
        if visit.climbed and failure:
            warnings.warn(
                f"{type(self).__name__} skipped a step: {failure}. The weights are unchanged.",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            self.base.step()
        visit.climbed, visit.failure = False, None
        if self._replay:
            self._replay.clear()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, as the base optimizer does.

        Args:
            set_to_none: Whether to drop them (default) or to fill them with zeros.
        """
        self.base.zero_grad(set_to_none)
        if not self._visit.open:
            self._visit.climbed, self._visit.failure = False, None
            if self._replay:
                self._replay.forget()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base optimizer.

        Args:
            param_group: As in torch; ``sam_rho`` and the like are filled in where missing.
        """
        self.base.add_param_group(param_group)
        try:
            self._complete_groups()
        except Exception:
            del self.param_groups[-1]
            raise

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's state, which is all there is.

        Returns:
            A dictionary that the base optimizer can load too.

        Raises:
            RuntimeError: If called inside ``perturbed()``.
        """
        self._refuse_inside("state_dict")
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a wrapper or of a bare base optimizer.

        Args:
            state_dict: What ``state_dict`` of either gave. Where it says nothing about rho and the
                like, each group keeps its own.

        Raises:
            RuntimeError: If called inside ``perturbed()``.
        """
        self._refuse_inside("load_state_dict")
        own = [{key: group[key] for key in self._group_defaults} for group in self.param_groups]
        self.base.load_state_dict(state_dict)
        for group, settings in zip(self.param_groups, own, strict=True):
            group.update({**settings, **group})
        self._complete_groups()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the replay, which hangs on the model that this instance knows."""
        return {key: value for key, value in super().__getstate__().items() if key != "_replay"}

    def _adopt(self, base: Optimizer) -> None:
        super()._adopt(base)
        self._replay = Replay(self.model) if self.model is not None else None

    def _refuse_inside(self, method: str) -> None:
        if self._visit.open:
            raise RuntimeError(
                f"{method}() was called inside perturbed(), where the weights are not the model's "
                "own; leave the block first."
            )

    def _complete_groups(self) -> None:
        """Fill in each group's own settings; a bad one is refused before it is used."""
        for group in self.param_groups:
            for key, value in self._group_defaults.items():
                group.setdefault(key, value)
            self._ball(group)

    def _names(self, group: dict[str, Any]) -> list[str | None]:
        """The name of each parameter of a group: the base's, else the model's, else None."""
        if "param_names" in group:
            return list(group["param_names"])
        if self.model is None:
            return [None] * len(group["params"])
        known = {id(p): name for name, p in self.model.named_parameters(remove_duplicate=False)}
        return [known.get(id(p)) for p in group["params"]]

    def _pieces(self) -> list[Piece]:
        """What has a gradient and a radius, cut for the climb."""
        pieces: list[Piece] = []
        for group in self.param_groups:
            ball = self._ball(group)
            if ball.rho == 0:
                continue
            sign = -1.0 if group.get("maximize") else 1.0
            # The number in front keeps names apart when two models share an optimizer.
            named = {
                f"{i}.{name or ''}": p
                for i, (name, p) in enumerate(zip(self._names(group), group["params"], strict=True))
            }
            fuse: set[str] = set()
            if self.fused:  # but a gradient that the user holds on to must stay what it is
                fuse = {name for name, p in named.items() if not _fused.is_held(p)}
            pairs = {name: (p, g) for name, p in named.items() if (g := p.grad) is not None}
            pieces += cut(ball, sign, pairs, fuse=fuse)
        return pieces

    def _climb(self, saved: Saved) -> None:
        visit = self._visit
        visit.report = None
        pieces = self._pieces()
        if not pieces:
            return
        by_ball = {ball: support.cpu() for ball, support in supports(pieces).items()}
        support = joint_support(by_ball)
        visit.report = report(by_ball, support)
        if not _sharded.agree(math.isfinite(support.item()), self.param_groups):
            visit.failure = "the gradient at the weights was not finite"
            return
        climb(pieces, support, saved)


@dataclass(slots=True)
class _Visit:
    """How far the visit to the perturbed point is.

    One shared object rather than attributes: frameworks wrap optimizers in objects that read
    through to ours but keep what is assigned to themselves.
    """

    open: bool = False
    climbed: bool = False
    failure: str | None = None
    parts: dict[Tensor, Tensor] | None = None
    report: StepReport | None = None

    def add_rise(self, loss: Any, worst: Any) -> None:
        if self.report is not None and isinstance(loss, Tensor) and isinstance(worst, Tensor):
            self.report = replace(self.report, rise=(worst - loss).detach())
