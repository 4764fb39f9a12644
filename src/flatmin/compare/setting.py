"""What a training loop of the user's is told of its arm, and what is counted meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from flatmin import optim
from flatmin.compare.arms import Arm
from flatmin.optim._perturbed import Perturbed


class Setting:
    """An arm with what was chosen for it; ``run`` gets one and asks it for the optimizer.

    Args:
        arm: The arm.
        lr: Learning rate to use; None where the file names none.
        rho: Radius of the ball; None where the arm has none.
        device: Where to compute.
        own: The task's function for an arm of its own, from parameters to an optimizer.

    Attributes:
        name: Name of the arm.
        steps: Steps that the optimizer took.
        active: Those among them that were made with the gradient of a perturbed point; of an
            optimizer that is not flatmin's this is not known, and they are none.
        gradients: How many were made for these steps; where an optimizer is not flatmin's, as many
            as its ``step`` called the closure, or one.
        lrs: First, highest and last learning rate of its steps.

    Example:
        >>> import torch
        >>> x = torch.nn.Parameter(torch.ones(1))
        >>> setting = Setting(Arm(name="sam", minimizer="sam"), lr=0.1, rho=0.5)
        >>> optimizer = setting.wrap(torch.optim.SGD([x], lr=setting.lr))
        >>> type(optimizer).__name__, setting.steps
        ('SAM', 0)
    """

    def __init__(
        self,
        arm: Arm,
        *,
        lr: float | None,
        rho: float | None,
        device: str = "cpu",
        own: Callable[[Any], Optimizer] | None = None,
    ) -> None:
        self.name, self.lr, self.rho, self.device = arm.name, lr, rho, device
        self.wrapped = False
        self.steps = self.active = self.gradients = 0
        self.lrs: tuple[float, float, float] | None = None
        self._calls = self._depth = 0
        self._minimizer, self._part, self._own = arm.minimizer, arm.part, own

    def wrap(
        self, base: Optimizer, model: nn.Module | None = None, *, steps: int | None = None
    ) -> Optimizer:
        """The optimizer of the arm.

        Args:
            base: The base optimizer, already built with ``lr``.
            model: The network, for ``model=`` of SAM and ASAM.
            steps: Steps of the whole run, from which late SAM knows when to begin.

        Returns:
            ``base`` itself, SAM or ASAM around it, or the arm's own on the same parameters.

        Raises:
            ValueError: If ``steps`` is needed and missing.
        """
        optimizer = base
        if self._own is not None:
            optimizer = self._own([p for group in base.param_groups for p in group["params"]])
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] if self.lr is None else self.lr
        elif self._minimizer != "none":
            kind = {"sam": optim.SAM, "asam": optim.ASAM}[self._minimizer]
            when = None
            if self._part < 1.0:
                if steps is None:
                    raise ValueError(
                        f"{self.name} perturbs in the last part of the steps: call "
                        "arm.wrap(optimizer, steps=...) with the number of steps of the run."
                    )
                when = optim.LastPart(self._part, of=steps)
            optimizer = kind(base, rho=self.rho, model=model, when=when)

        def end(*_: Any) -> None:
            self._depth -= 1
            if not self._depth:
                self._count(optimizer)

        optimizer.register_step_pre_hook(self._begin)
        optimizer.register_step_post_hook(end)
        self.wrapped = True
        return optimizer

    def _count(self, optimizer: Optimizer) -> None:
        """Note a step that was taken."""
        self.steps += 1
        if isinstance(optimizer, Perturbed):
            climbed = optimizer._visit.climbed
            self.active += climbed
            self.gradients += 1 + (climbed and not optimizer.one_pass)
        else:  # another's, which is known by its closure alone
            self.gradients += max(self._calls, 1)
        lr = float(optimizer.param_groups[0]["lr"])
        before = self.lrs or (lr, lr, lr)
        self.lrs = before[0], max(before[1], lr), lr

    def _begin(
        self, _: Optimizer, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The arguments of a step, with a closure that notes its calls."""
        self._depth += 1
        if self._depth > 1:  # a subclass has called the step of its parent, which is no other one
            return None
        self._calls = 0

        def counted(value: Any) -> Any:
            if not callable(value):
                return value

            def closure() -> Any:
                self._calls += 1
                return value()

            return closure

        return tuple(map(counted, arguments)), {name: counted(v) for name, v in named.items()}
