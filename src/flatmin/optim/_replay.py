"""The second pass through a model, made to look at the same network as the first."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.utils._pytree import tree_leaves

RandomState = tuple[Tensor, dict[int, Tensor]]


@dataclass(slots=True)
class _Call:
    """A forward of the first pass: the random state before it, and whether a backward followed."""

    random_state: RandomState
    used: bool = False

    def use(self, *_: Any) -> None:
        self.used = True


class Replay:
    """Buffers as the first pass left them, and the random numbers that it drew.

    A hook in front of the model's ``forward`` notes the random state of each call in the first pass
    and sets it again for the call of the same number in the second, so that dropout masks return.
    Only calls that a backward reached count: they are what the gradient is made of, whatever else
    was evaluated, and whenever the gradients were cleared.
    Buffers (BatchNorm statistics among them) are copied back after the second pass.
    """

    def __init__(self, model: nn.Module) -> None:
        """Attach to ``model`` for as long as this object lives."""
        self.model = model
        self._tape: list[_Call] = []
        self._second: Iterator[_Call] | None = None
        for hook in (
            model.register_forward_pre_hook(_Hook(self, "before_forward")),
            model.register_forward_hook(_Hook(self, "after_forward")),
        ):
            weakref.finalize(self, hook.remove)

    @contextmanager
    def second_pass(self) -> Iterator[None]:
        """Replay inside; afterwards buffers and random state are those of before."""
        buffers = [
            (module, name, buffer, buffer.detach().clone())
            for module in self.model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        state = self._random_state()
        self._second = iter([call for call in self._tape if call.used])
        try:
            yield
        finally:
            self._second = None
            self.clear()
            _set_random_state(state)
            with torch.no_grad():
                for module, name, buffer, value in buffers:
                    buffer.copy_(value)
                    module._buffers[name] = buffer

    def clear(self) -> None:
        """Start anew, since the weights have changed."""
        self._tape.clear()

    def forget(self) -> None:
        """Drop the calls whose gradients were dropped; a backward may yet reach the others."""
        self._tape = [call for call in self._tape if not call.used]

    def before_forward(self, _: Any) -> None:
        """Note or set the random state."""
        if not self._counts():
            return
        if self._second is None:
            # Activation checkpointing calls forward again in a backward: of use by its nature.
            recomputes = torch._C._current_graph_task_id() != -1
            self._tape.append(_Call(self._random_state(), used=recomputes))
        elif call := next(self._second, None):
            _set_random_state(call.random_state)

    def after_forward(self, output: Any) -> None:
        """Watch for the backward of a call of the first pass."""
        if not self._counts() or self._second is not None or not self._tape:
            return
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(self._tape[-1].use)

    def _counts(self) -> bool:
        """Whether a forward can be of a pass: not without gradient, nor in eval mode."""
        return torch.is_grad_enabled() and self.model.training

    def _random_state(self) -> RandomState:
        cuda: dict[int, Tensor] = {}
        # Before that no parameter can be there, and the walk over them is saved.
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            places = {p.device for p in self.model.parameters()}
            for index in sorted(d.index for d in places if d.type == "cuda"):
                cuda[index] = torch.cuda.get_rng_state(index)
        return torch.get_rng_state(), cuda


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


def _set_random_state(state: RandomState) -> None:
    cpu, cuda = state
    torch.set_rng_state(cpu)
    for device, value in cuda.items():
        torch.cuda.set_rng_state(value, device)
