"""What a forward may write beside the weights: kept at one moment, put back at another."""

from __future__ import annotations

import functools
import math
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flatmin.optim._copies import Copies

Namespace = dict[str, Any]
PutBack = Callable[[], object]

# What torch keeps in every module: structure, hooks and mode, which are not a forward's to write.
_STRUCTURE = frozenset(vars(nn.Module()))

# Frozen tensors that a forward may write (momentum encoders, teachers) are copies of what trains.
# Where far more is frozen, it is a backbone, and a copy of it would cost more than all the rest.
_AT_MOST = 2


class State:
    """Buffers, frozen parameters and plain attributes of a model, as they are now.

    Attributes are bound to what they were bound to, and tensors, arrays, lists, dictionaries, sets,
    deques and generators among them hold again what they held. Attributes of torch's own modules
    are settings, unless a hook may write them, as that of the old ``weight_norm`` does.

    Attributes:
        devices: Where the parameters lie.
    """

    def __init__(self, model: nn.Module) -> None:
        """Keep the state of ``model``."""
        self.devices: set[torch.device] = set()
        self._bindings: list[tuple[Namespace, Namespace]] = []
        self._contents: list[PutBack] = []
        tensors: dict[Tensor, None] = {}
        frozen: dict[Tensor, None] = {}
        for module in _modules(model):
            for p in module._parameters.values():
                if p is not None:
                    self.devices.add(p.device)
                    if not p.requires_grad:
                        frozen[p] = None
            for namespace in _namespaces(module):
                bound = {k: v for k, v in namespace.items() if k not in _STRUCTURE}
                self._bindings.append((namespace, bound))
                for value in bound.values():
                    if isinstance(value, Tensor):
                        tensors[value] = None
                    elif type(value) in _KEEPERS:
                        self._contents.append(_KEEPERS[type(value)](value))
        self._norms = _norms(model) if frozen else {}
        if not self._norms:
            tensors.update(frozen)
        self._copies = Copies([t for t in tensors if t.grad_fn is None and not t.requires_grad])

    def put_back(self) -> None:
        """Let the model be as it was."""
        for namespace, bound in self._bindings:
            for name in [n for n in namespace if n not in bound and n not in _STRUCTURE]:
                del namespace[name]
            for name, value in bound.items():
                if namespace.get(name) is not value or name not in namespace:
                    namespace[name] = value
        for put_back in self._contents:
            put_back()
        self._copies.put_back()

    def refuse_changes(self, now: State) -> None:
        """Notice a forward that writes frozen parameters of which there is no copy.

        Args:
            now: The state some time later.

        Raises:
            RuntimeError: If one has changed.
        """
        for name, before in self._norms.items():
            after = now._norms.get(name, before)
            if before != after and not (math.isnan(before) and math.isnan(after)):
                raise RuntimeError(
                    f"the forward writes the frozen parameter {name!r}, and the second pass would "
                    f"begin from what the first one wrote; more than {_AT_MOST} times as much is "
                    "frozen as trains, so no copy is kept: make it a buffer, of which one is."
                )


def _modules(model: nn.Module) -> Iterator[nn.Module]:
    """All modules, once each: ``modules()`` makes their names too, in each step."""
    seen, waiting = {model}, [model]
    while waiting:
        module = waiting.pop()
        yield module
        for child in module._modules.values():
            if child is not None and child not in seen:
                seen.add(child)
                waiting.append(child)


def _namespaces(module: nn.Module) -> Iterator[Namespace]:
    """Where a module keeps what its forward may write."""
    if module._buffers:
        yield module._buffers
    kind: Any = type(module)
    if _is_own(kind) or (module._forward_pre_hooks and kind.__module__.startswith("torch.nn.mod")):
        yield vars(module)


@functools.cache
def _is_own(kind: Any) -> bool:
    """Whether a module is of a class that is not torch's."""
    return any(
        issubclass(c, nn.Module) and c.__module__.partition(".")[0] != "torch" for c in kind.mro()
    )


def _norms(model: nn.Module) -> dict[str, float]:
    """By what a change of frozen parameters is noticed that are too many to be copied."""
    frozen, trained = {}, 0
    for name, p in model.named_parameters():
        if p.requires_grad:
            trained += p.numel()
        else:
            frozen[name] = p.detach()
    if sum(t.numel() for t in frozen.values()) <= _AT_MOST * trained:
        return {}
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, t in frozen.items():
        if t.dtype in _WITH_NORMS and t.numel():
            by_device.setdefault(t.device, {})[name] = t
    norms: dict[str, float] = {}
    for tensors in by_device.values():
        found = torch.stack([n.double() for n in torch._foreach_norm(list(tensors.values()))])
        norms.update(zip(tensors, found.tolist(), strict=True))
    return norms


_WITH_NORMS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _keep_list(value: Any) -> PutBack:
    kept = list(value)

    def put_back() -> None:
        value.clear()
        value.extend(kept)

    return put_back


def _keep_dict(value: Any) -> PutBack:
    kept = value.copy()

    def put_back() -> None:
        value.clear()
        value.update(kept)

    return put_back


def _keep_array(value: Any) -> PutBack:
    kept = value.copy()
    return lambda: np.copyto(value, kept)


def _keep_generator(value: Any) -> PutBack:
    kept = value.get_state()
    return lambda: value.set_state(kept)


def _keep_bits(value: np.random.Generator) -> PutBack:
    source = value.bit_generator
    kept = source.state
    return lambda: setattr(source, "state", kept)


def _keep_random(value: random.Random) -> PutBack:
    kept = value.getstate()
    return lambda: value.setstate(kept)


_KEEPERS: dict[type, Callable[[Any], PutBack]] = {
    list: _keep_list,
    deque: _keep_list,
    dict: _keep_dict,
    OrderedDict: _keep_dict,
    defaultdict: _keep_dict,
    Counter: _keep_dict,
    set: _keep_dict,
    SimpleNamespace: lambda value: _keep_dict(vars(value)),
    np.ndarray: _keep_array,
    np.random.Generator: _keep_bits,
    np.random.RandomState: _keep_generator,
    random.Random: _keep_random,
    torch.Generator: _keep_generator,
}
