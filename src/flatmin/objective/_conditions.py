"""The conditions under which a loss is measured: one exact function, and nothing left behind."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn.utils import parametrize


def devices_of(model: nn.Module) -> set[torch.device]:
    """Name the accelerators that hold a part of the model."""
    tensors = [*model.parameters(), *model.buffers()]
    return {t.device for t in tensors if t.device.type == "cuda"}


@contextmanager
def measuring(devices: Collection[torch.device]) -> Iterator[None]:
    """One function in full precision, and the caller's random state untouched.

    With and without gradients, once and twice differentiated, the same arithmetic is done.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for kind in {"cpu", *(device.type for device in devices)}:
            # No cache: it would keep what a model casts by itself beyond the point it belongs to.
            stack.enter_context(torch.autocast(kind, enabled=False, cache_enabled=False))
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
        stack.enter_context(_plain_attention())
        # Reentrant checkpoints can be differentiated by no call but backward().
        stack.enter_context(_set(torch.utils.checkpoint, "CheckpointFunction", _Checkpoint))
        # Where torch fuses weight normalization, its second derivative is wrong.
        for owner in (torch, sys.modules["torch.nn.utils.weight_norm"]):
            stack.enter_context(_set(owner, "_weight_norm", _weight_norm))
        # Its entries belong to the caller's parameters; a model may still open a cache of its own.
        stack.enter_context(_set(parametrize, "_cache_enabled", 0))
        stack.enter_context(_set(parametrize, "_cache", {}))
        if "torch._dynamo" in sys.modules:  # else nothing has been compiled
            # Compiled code cannot be differentiated twice.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


class _Checkpoint:
    """Activation checkpointing of the kind that autograd sees through."""

    @staticmethod
    def apply(function: Any, preserve_rng_state: bool, *args: Any) -> Any:
        """Do what a reentrant checkpoint does, in the other way."""
        return torch.utils.checkpoint.checkpoint(
            function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state
        )


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Weight normalization by its formula."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _reduced_precision() -> list[Any]:
    # What may round float32 to TF32 or bfloat16 on the way through a product.
    backends: Any = torch.backends
    units = [backends.cuda.matmul, backends.cudnn]
    if hasattr(backends.cuda.matmul, "fp32_precision"):
        units = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
        units += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    return units


@contextmanager
def _plain_attention() -> Iterator[None]:
    # Without gradients, torch's transformer layers zero what is padded; with them, they do not.
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _set(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
