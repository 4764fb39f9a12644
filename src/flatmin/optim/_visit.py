"""How far the visit to the perturbed point is."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.weak import TensorWeakRef

from flatmin.optim._factor import Sizes
from flatmin.optim._gradients import is_anything, version
from flatmin.optim._report import StepReport

_INSIDE = (str(Path(__file__).parents[1]), str(contextlib.__file__))


# So many of the last parameters are asked whether there is anything in their gradient.
_LOOKED_AT = 4


class Probe:
    """Tells whether gradients are added to those that were there before.

    A hook on one parameter looks, at the next gradient that comes for it, whether an earlier one
    is still in its place, and another one whether it was put there: what ``autograd.grad`` asks for
    is not. However it was cleared, dropped or filled with zeros, is seen there. The parameter
    is the last one: where something begins at zero (LoRA, a residual branch, a head), the gradients
    of what lies ahead of it are zero too, and look as if they had been cleared.
    """

    __torch_unserializable__ = True  # torch warns of hooks that a pickled tensor loses

    def __init__(self, params: Iterable[Tensor]) -> None:
        """Watch the last parameter that has a gradient."""
        self.added: bool | None = None
        watched = (
            p for p in reversed([*params]) if p.grad is not None and p.requires_grad and p.is_leaf
        )
        self.param = next(watched, None)
        # Weakly: who holds a gradient keeps others from writing to it.
        self._seen: Any = None
        self._found: bool | None = None
        self._handles: list[Any] = []
        if self.param is not None and self.param.grad is not None:
            self._seen = TensorWeakRef(self.param.grad), version(self.param.grad)
            try:
                for register, hook in (
                    (self.param.register_hook, self),
                    (self.param.register_post_accumulate_grad_hook, self._put),
                ):
                    self._handles.append(register(hook))  # type: ignore[no-untyped-call]
            except BaseException:  # an interrupt: nobody would know of the first
                self.close()
                raise

    def __call__(self, _: Tensor) -> None:
        if self.added is False:  # that is all there is to know
            self.close()
            return
        earlier = self.param.grad if self.param is not None else None
        self._found = earlier is not None and is_anything(earlier)

    def _put(self, _: Tensor) -> None:
        # Of sharded parameters the first hook hears nothing, and FSDP walks through these, so they
        # stay. What was added may yet be cleared before the next one comes, and is asked again.
        if self.added is not False and self._found is not None:
            self.added = self._found

    @property
    def untouched(self) -> bool:
        """Whether the gradient that was there is so still, and none has come for it since."""
        if self.added is not None or self.param is None or self.param.grad is None:
            return False
        (reference, before), grad = self._seen, self.param.grad
        return reference() is grad and version(grad) == before and is_anything(grad)

    def close(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


@dataclass(slots=True)
class Visit:
    """One shared object rather than attributes of the optimizer.

    Frameworks wrap optimizers in objects that read through to ours but keep what is assigned to
    themselves.

    Attributes:
        open: Whether the weights are perturbed now.
        climbed: Whether the gradients in place were made at a perturbed point.
        ever: Whether any was.
        failure: Why the next step is to be skipped.
        earlier: Inside ``micro_batches()``, the gradients that were there before.
        parts: Inside ``micro_batches()``, the sums of the parts so far.
        probe: Watches what becomes of gradients that have been used.
        cleared: Whether ``zero_grad`` was called since a closure was entered.
        wasted: Whether it was called after a block, before a step.
        zeros: Whether it was told to fill them with zeros.
        told: The warnings that were given; each is given once.
        report: Of the last climb.
        share: Inside a block, the part of rho with which it perturbs.
        aside: What a variant keeps of the block for the step.
        sizes: The norms of the gradients that the block left, where ``aside`` goes by them.
        after: The same just before the step.
        taken: Steps that a rule was asked for.
        perturbed: Whether one of them was due.
        synced: Whether both gradients were seen to be of the same processes.
        square: The squared norm of the first gradient, if a rule has looked at it.
        unscaled: Watches what becomes of gradients that a ``GradScaler`` has unscaled.
    """

    open: bool = False
    climbed: bool = False
    ever: bool = False
    failure: str | None = None
    earlier: dict[Tensor, Tensor] = field(default_factory=dict)
    parts: dict[Tensor, Tensor] | None = None
    probe: Probe | None = None
    cleared: bool = False
    wasted: bool = False
    zeros: bool = False
    told: set[str] = field(default_factory=set)
    report: StepReport | None = None
    share: float = 0.0
    square: float | None = None
    aside: dict[Tensor, Tensor] = field(default_factory=dict)
    sizes: Sizes = field(default_factory=Sizes)
    after: Sizes = field(default_factory=Sizes)
    taken: int = 0
    perturbed: bool = False
    synced: bool = False
    unscaled: Probe | None = None

    def watch(self, params: Iterable[Tensor]) -> None:
        """Notice whether what comes is added to the gradients of now."""
        self.forget()
        self.probe = Probe(params)

    def watch_unscaled(self, params: Iterable[Tensor]) -> None:
        """Notice whether gradients that are unscaled now are still there later."""
        if self.unscaled is not None:
            self.unscaled.close()
        # One is watched whose gradient can be told from one that was cleared.
        last = [p for p in params if p.grad is not None][-_LOOKED_AT:]
        self.unscaled = Probe([p for p in last if p.grad is not None and is_anything(p.grad)])

    @property
    def is_unscaled(self) -> bool:
        """Whether gradients are in place that a ``GradScaler`` has unscaled."""
        probe = self.unscaled
        if probe is None or probe.param is None or probe.param.grad is None:
            return False
        return bool(probe.added) or (probe.added is None and is_anything(probe.param.grad))

    def forget(self) -> None:
        """Nothing that has been used is in place any more."""
        if self.probe is not None:
            self.probe.close()
        self.probe = None

    def reset(self) -> None:
        """The gradients in place were not made in a block, if there are any."""
        self.climbed, self.failure, self.square = False, None, None
        self.aside.clear()

    def add_rise(self, loss: Any, worst: Any) -> None:
        """Complete the report with the losses of both passes."""
        if self.report is not None and isinstance(loss, Tensor) and isinstance(worst, Tensor):
            self.report = replace(self.report, rise=(worst - loss).detach())

    def settled(self) -> Visit:
        """A copy for another optimizer: without what hangs on this one's parameters."""
        return Visit(
            climbed=self.climbed,
            ever=self.ever,
            failure=self.failure,
            told=set(self.told),
            report=self.report,
            aside=dict(self.aside),
            sizes=self.sizes,
        )

    @property
    def added(self) -> bool:
        """Whether gradients that had been used were added to, and are there still."""
        probe = self.probe
        if probe is None or probe.param is None:
            return False
        return bool(probe.added) and probe.param.grad is not None

    @property
    def left(self) -> bool:
        """Whether what the last block has made is in place, and nothing has come for it.

        As after a block for another head: its backward brought the one that is watched nothing.
        """
        return self.climbed and self.probe is not None and self.probe.untouched

    @property
    def given_up(self) -> bool:
        """Whether the gradients of the last block have made room for new ones, of no block."""
        return self.climbed and self.probe is not None and self.probe.added is False

    @property
    def used(self) -> bool:
        """Whether the gradients in place are those of the last step, and none has come since."""
        return self.probe is not None and self.probe.param is not None and self.probe.added is None

    def tell(self, sentence: str) -> None:
        """Warn, once."""
        if sentence not in self.told:
            self.told.add(sentence)
            warnings.warn(sentence, RuntimeWarning, stacklevel=_level_of_the_caller())


def _level_of_the_caller() -> int:
    """How far up the stack the line lies that called us, as ``tell`` counts."""
    level, frame = 2, sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    return level
