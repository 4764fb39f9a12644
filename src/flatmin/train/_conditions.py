"""The global state that training depends on: chosen inside, and the caller's again afterwards.

Nothing of flatmin draws from Python's or numpy's global generators; the network of a user may.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

# What numpy's old global generator takes.
_NUMPY_SEEDS = 2**32


@contextmanager
def own_defaults(dtype: torch.dtype) -> Iterator[None]:
    """Fix what torch gives a tensor that is made without device or type, whatever the caller chose.

    Args:
        dtype: The floating type; the device is the CPU, where all random numbers are drawn.
    """
    before = torch.get_default_dtype()
    with ExitStack() as stack:
        # As a mode it costs a little in each call, so only where it changes something.
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.callback(torch.set_default_dtype, before)
        torch.set_default_dtype(dtype)
        yield


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch, numpy and Python, and choose repeatable kernels; afterwards all is as it was."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        # ``torch.manual_seed`` would seed accelerators that are not put back.
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % _NUMPY_SEEDS)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of every global source of random numbers, as plain values."""
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    states: dict[str, Any] = {
        "cpu": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": {
            "key": torch.from_numpy(numpy["state"]["key"].astype(np.int64)),
            "pos": int(numpy["state"]["pos"]),
            "has_gauss": int(numpy["has_gauss"]),
            "gauss": float(numpy["gauss"]),
        },
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(states: dict[str, Any], device: torch.device) -> None:
    """Go back to what ``random_state`` gave."""
    torch.set_rng_state(states["cpu"])
    random.setstate(states["python"])
    numpy = states["numpy"]
    key = numpy["key"].numpy().astype(np.uint32)
    state = ("MT19937", key, numpy["pos"], numpy["has_gauss"], numpy["gauss"])
    np.random.set_state(state)  # noqa: NPY002
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
