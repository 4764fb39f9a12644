"""The second pass through a model, made to look at the same network as the first."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

RandomState = tuple[Tensor, dict[int, Tensor]]


class Replay:
    """Buffers as the first pass left them, and the random numbers that it drew.

    A hook in front of the model's ``forward`` notes the random state of each call in the first pass
    and sets it again for the call of the same number in the second, so that dropout masks return.
    Buffers (BatchNorm statistics among them) are copied back after the second pass.
    """

    def __init__(self, model: nn.Module) -> None:
        """Attach to ``model`` for as long as this object lives."""
        self.model = model
        self._tape: list[RandomState] = []
        self._calls: int | None = None
        hook = model.register_forward_pre_hook(_Hook(self))
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
        self._calls = 0
        try:
            yield
        finally:
            self._calls = None
            self.forget()
            _set_random_state(state)
            with torch.no_grad():
                for module, name, buffer, value in buffers:
                    buffer.copy_(value)
                    module._buffers[name] = buffer

    def forget(self) -> None:
        """Start a new first pass."""
        self._tape.clear()

    def before_forward(self) -> None:
        """Note or set the random state; passes without gradient or in eval mode do not count."""
        if not (torch.is_grad_enabled() and self.model.training):
            return
        if self._calls is None:
            self._tape.append(self._random_state())
        else:
            if self._calls < len(self._tape):
                _set_random_state(self._tape[self._calls])
            self._calls += 1

    def _random_state(self) -> RandomState:
        devices = {p.device.index for p in self.model.parameters() if p.device.type == "cuda"}
        cuda = {d: torch.cuda.get_rng_state(d) for d in sorted(d for d in devices if d is not None)}
        return torch.get_rng_state(), cuda


class _Hook:
    """Leads to the replay while it lives; copies of the model carry a dead one."""

    def __init__(self, replay: Replay | None = None) -> None:
        self._replay = weakref.ref(replay) if replay is not None else None

    def __call__(self, module: nn.Module, args: Any) -> None:
        replay = self._replay() if self._replay is not None else None
        if replay is not None:
            replay.before_forward()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        return _Hook()

    def __reduce__(self) -> tuple[type[_Hook], tuple[()]]:
        return _Hook, ()


def _set_random_state(state: RandomState) -> None:
    cpu, cuda = state
    torch.set_rng_state(cpu)
    for device, value in cuda.items():
        torch.cuda.set_rng_state(value, device)
