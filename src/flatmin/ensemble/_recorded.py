"""Calls without the overhead of transforms: record the tensor operations once, then replay them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

Function = Callable[..., list[Tensor]]

# Recording costs as much as some hundred calls, which a short training does not have.
_CALLS_BEFORE_RECORDING = 300
_RECORDING = threading.Lock()  # recording changes state that all threads share


class Recorded:
    """A function of tensors that is replayed, once the same shapes have come up often enough.

    For small networks, ``vmap``, ``functional_call`` and ``autograd`` take longer than the
    arithmetic they arrange; the replay is the same arithmetic, bit for bit, without them. The
    function must be pure, and its control flow must not depend on the values of its arguments.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self._calls: Counter[object] = Counter()
        self._recordings: dict[object, GraphModule] = {}

    def __call__(self, *arguments: Tensor) -> list[Tensor]:
        """Call the function, or replay it."""
        key = tuple((t.shape, t.stride(), t.dtype) for t in arguments)
        if key not in self._recordings:
            self._calls[key] += 1
            if self._calls[key] <= _CALLS_BEFORE_RECORDING:
                return self.function(*arguments)
            with _RECORDING:
                self._recordings[key] = _without_empty_steps(make_fx(self.function)(*arguments))
        outputs: list[Tensor] = self._recordings[key](*arguments)
        return outputs


def _without_empty_steps(recording: GraphModule) -> GraphModule:
    """Leave out views that change nothing; there are as many of them as of real operations."""
    aten = torch.ops.aten
    for node in recording.graph.nodes:
        if node.target in (aten.detach.default, aten.view.default, aten.expand.default):
            (source, *_) = node.args
            before, after = source.meta.get("tensor_meta"), node.meta.get("tensor_meta")
            if before and after and (before.shape, before.stride) == (after.shape, after.stride):
                node.replace_all_uses_with(source)
    recording.graph.eliminate_dead_code()
    recording.recompile()
    return recording
