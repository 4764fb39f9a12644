"""The second pass through a model, made to look at the same network as the first."""

from __future__ import annotations

import itertools
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from flatmin.optim._random import Random
from flatmin.optim._state import State

_numbers = itertools.count()

# So many calls of the first pass are remembered by the place in the code that made them.
_REMEMBERED = 64

_Place = tuple[CodeType, int, bool]
"""Code of a call, where in it, and whether gradients were on."""

_INSIDE = (torch.__path__[0], str(Path(__file__).parents[1]))


class _Seen(NamedTuple):
    """A forward of the first pass, with or without gradients: what it drew from."""

    number: int
    place: _Place
    random: Random


@dataclass(eq=False, slots=True)
class _Call:
    """One that a backward may reach: what it began with."""

    seen: _Seen
    state: State
    used: list[_Call]

    def use(self, *_: Any) -> None:
        """Count: a backward has come here."""
        if self not in self.used:
            self.used.append(self)


class Replay:
    """The second pass sees what the first one saw, and leaves what that one left.

    A hook in front of the model's ``forward`` notes the random state and the state of the model
    (``State``) at each call in the first pass. The second pass begins with the state of the first
    call, and its calls with the random states of the first pass's, so that dropout masks return.
    Which call repeats which, the place in the code tells: so what the loss calls beside (targets
    of its own, an attack) is repeated too. A call from a place of its own repeats the next one that
    a backward has reached: these are what the gradient is made of, whatever else was evaluated, and
    whenever the gradients were cleared. The state of one that no backward can reach any more is
    forgotten with its graph, which alone holds it.
    """

    def __init__(self, model: nn.Module, bases: Iterable[Optimizer] = ()) -> None:
        """Attach to ``model`` for as long as this object lives.

        Args:
            model: Whose calls are repeated.
            bases: After a step of one of them, by whomever, nothing of before is to be repeated.
        """
        self.model = model
        self.seen = False  # whether the last first pass went through the model
        self.left = 0  # calls of the last first pass that the second one did not repeat
        self._used: list[_Call] = []
        self._begun: _Call | None = None
        # All since the last step, and the state before the first of them.
        self._calls: deque[_Seen] = deque(maxlen=_REMEMBERED)
        self._first: tuple[int, State] | None = None
        self._second: list[_Seen] | None = None
        for hook in (
            # Ahead of hooks that change the state, as those of the old spectral_norm do.
            model.register_forward_pre_hook(_Hook(self, "before_forward"), prepend=True),
            model.register_forward_hook(_Hook(self, "after_forward")),
            *(base.register_step_post_hook(_Hook(self, "after_step")) for base in bases),
        ):
            weakref.finalize(self, hook.remove)

    @contextmanager
    def second_pass(self) -> Iterator[None]:
        """Replay inside; afterwards state and random numbers are those of before."""
        calls = sorted(self._used, key=lambda call: call.seen.number)
        self.seen = bool(calls)
        state = State(self.model)
        random = Random(state.devices)
        try:
            if calls:
                calls[0].state.refuse_changes(state)
                calls[0].state.put_back()
            self._second = [call.seen for call in calls]
            yield
            self.left = len(self._second)
        finally:
            self._second = None
            self.clear()
            random.put_back()
            state.put_back()

    def clear(self) -> None:
        """Start anew, since the weights have changed: what is still to be used is of before."""
        self._used = []
        self._calls.clear()
        self._first = None

    def after_step(self, _: Any) -> None:
        """Start anew, be it a step of the base alone, of which the wrapper hears nothing."""
        self.clear()

    def forget(self) -> None:
        """Drop the calls whose gradients were dropped; a backward may yet reach the others."""
        self._used.clear()

    def before_forward(self, _: Any) -> None:
        """Note what is there, or set it."""
        place = _place()
        if self._second is not None:
            if call := self._repeated(place):
                call.random.put_back()
            return
        graded = place[-1]
        if not graded and not self.model.training:
            return
        known = self._first[1] if self._first and not graded else State(self.model)
        seen = _Seen(next(_numbers), place, Random(known.devices))
        self._first = self._first or (seen.number, known)
        self._calls.append(seen)
        if graded:
            self._begun = _Call(seen, known, self._used)
            # Activation checkpointing calls forward again in a backward: of use by its nature.
            if torch._C._current_graph_task_id() != -1:
                self._begun.use()

    def _repeated(self, place: _Place) -> _Seen | None:
        """The call of the first pass that one of the second repeats; each is repeated once."""
        waiting = self._second or []
        found = next((call for call in waiting if call.place == place), None)
        if found is None:
            found = next((call for call in self._calls if call.place == place), None)
            if found is not None and self._first and self._first[0] == found.number:
                self._first[1].put_back()
        if found is None and place[-1] and waiting:
            found = waiting[0]
        if found is not None:
            self._second = [call for call in waiting if call is not found]
            self._calls = deque((c for c in self._calls if c is not found), _REMEMBERED)
        return found

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


def _place() -> _Place:
    """Who has called the model: the innermost place that is neither torch's nor ours."""
    frame: Any = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        frame = frame.f_back
    return frame.f_code, frame.f_lasti, torch.is_grad_enabled()


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
