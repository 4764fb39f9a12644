"""The second pass through a model, made to look at the same network as the first."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.utils._pytree import tree_leaves

from flatmin.optim._random import Random
from flatmin.optim._state import State

_numbers = itertools.count()


@dataclass(eq=False, slots=True)
class _Call:
    """A forward of the first pass: what it began with."""

    random: Random
    state: State
    used: list[_Call]
    number: int = field(default_factory=lambda: next(_numbers))

    def use(self, *_: Any) -> None:
        """Count: a backward has come here."""
        if self not in self.used:
            self.used.append(self)


class Replay:
    """The second pass sees what the first one saw, and leaves what that one left.

    A hook in front of the model's ``forward`` notes the random state and the state of the model
    (``State``) at each call in the first pass. The second pass begins with the state of the first
    call, and its calls with the random states of the first pass's, so that dropout masks return.
    Only calls that a backward reached count: they are what the gradient is made of, whatever else
    was evaluated, and whenever the gradients were cleared. A call that no backward can reach any
    more is forgotten with its graph, which alone holds it.
    """

    def __init__(self, model: nn.Module) -> None:
        """Attach to ``model`` for as long as this object lives."""
        self.model = model
        self.seen = False  # whether the last first pass went through the model
        self.left = 0  # calls of the last first pass that the second one did not repeat
        self._used: list[_Call] = []
        self._begun: _Call | None = None
        self._second: Iterator[_Call] | None = None
        for hook in (
            # Ahead of hooks that change the state, as those of the old spectral_norm do.
            model.register_forward_pre_hook(_Hook(self, "before_forward"), prepend=True),
            model.register_forward_hook(_Hook(self, "after_forward")),
        ):
            weakref.finalize(self, hook.remove)

    @contextmanager
    def second_pass(self) -> Iterator[None]:
        """Replay inside; afterwards state and random numbers are those of before."""
        calls = sorted(self._used, key=lambda call: call.number)
        self.seen = bool(calls)
        state = State(self.model)
        random = Random(state.devices)
        try:
            if calls:
                calls[0].state.refuse_changes(state)
                calls[0].state.put_back()
            self._second = iter(calls)
            yield
            self.left = sum(1 for _ in self._second)
        finally:
            self._second = None
            self.clear()
            random.put_back()
            state.put_back()

    def clear(self) -> None:
        """Start anew, since the weights have changed: what is still to be used is of before."""
        self._used = []

    def forget(self) -> None:
        """Drop the calls whose gradients were dropped; a backward may yet reach the others."""
        self._used.clear()

    def before_forward(self, _: Any) -> None:
        """Note what is there, or set it."""
        if not torch.is_grad_enabled():
            return
        if self._second is None:
            state = State(self.model)
            self._begun = _Call(Random(state.devices), state, self._used)
            # Activation checkpointing calls forward again in a backward: of use by its nature.
            if torch._C._current_graph_task_id() != -1:
                self._begun.use()
        elif call := next(self._second, None):
            call.random.put_back()

    def after_forward(self, output: Any) -> None:
        """Watch for the backward of a call of the first pass."""
        call, self._begun = self._begun, None
        if call is None:
            return
        for tensor in _tensors(output):
            if tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(call.use)


def _tensors(output: Any, depth: int = 3) -> Iterator[Tensor]:
    """The tensors of an output, also of one in a class of the user's own."""
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            yield leaf
        elif depth and not isinstance(leaf, nn.Module | type):
            names = (*getattr(leaf, "__dict__", ()), *getattr(type(leaf), "__slots__", ()))
            for name in names:
                yield from _tensors(getattr(leaf, name, None), depth - 1)


class _Hook:
    """Leads to the replay while it lives; copies of the model carry a dead one."""

    def __init__(self, replay: Replay | None = None, method: str = "") -> None:
        self._replay = weakref.ref(replay) if replay is not None else None
        self._method = method

    @_disable_dynamo  # the decorator of torch's own optimizers, lazy unlike the public one
    def __call__(self, module: nn.Module, args: Any, output: Any = None) -> None:
        replay = self._replay() if self._replay is not None else None
        if replay is not None:
            getattr(replay, self._method)(output)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        return _Hook()

    def __reduce__(self) -> tuple[type[_Hook], tuple[()]]:
        return _Hook, ()
