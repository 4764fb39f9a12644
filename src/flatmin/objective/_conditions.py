"""The conditions under which a loss is measured: exact arithmetic, and nothing left behind."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


def devices_of(model: nn.Module) -> set[torch.device]:
    """Name the accelerators that hold a part of the model."""
    tensors = [*model.parameters(), *model.buffers()]
    return {t.device for t in tensors if t.device.type == "cuda"}


@contextmanager
def measuring(devices: Collection[torch.device]) -> Iterator[None]:
    """Full precision, the same algorithms each time, and the caller's random state untouched."""
    with ExitStack() as stack:
        for kind in {"cpu", *(device.type for device in devices)}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.random.fork_rng(devices=[d.index for d in devices]))
        # Tuning picks an algorithm by the clock, and another algorithm rounds differently.
        cudnn = torch.backends.cudnn
        stack.enter_context(_set(cudnn, "benchmark", False))
        stack.enter_context(_set(cudnn, "deterministic", True))
        for unit in _reduced_precision():
            # Since torch 2.9 the older switch cannot even be read once the newer one was used.
            if hasattr(unit, "fp32_precision"):
                stack.enter_context(_set(unit, "fp32_precision", "ieee"))
            elif hasattr(unit, "allow_tf32"):
                stack.enter_context(_set(unit, "allow_tf32", False))
        yield


def _reduced_precision() -> list[Any]:
    # What may round float32 to TF32 or bfloat16 on the way through a product.
    backends: Any = torch.backends
    units = [backends.cuda.matmul, backends.cudnn]
    if hasattr(backends.cuda.matmul, "fp32_precision"):
        units = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
        units += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    return units


@contextmanager
def _set(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
