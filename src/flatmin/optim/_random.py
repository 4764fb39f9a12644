"""The random numbers that a forward may draw: torch's on all devices, Python's and NumPy's."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch


class Random:
    """The state of every global stream of random numbers, as it is now."""

    def __init__(self, devices: Iterable[torch.device]) -> None:
        """Keep the states of the processor and of ``devices``."""
        self._torch = torch.get_rng_state()
        self._python = random.getstate()
        self._numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002  users draw from it
        self._devices: list[tuple[Any, torch.Tensor, tuple[int, ...]]] = []
        places = {(device.type, device.index) for device in devices}
        for kind, index in sorted(place for place in places if place[0] not in ("cpu", "meta")):
            device = torch.get_device_module(kind)
            which = () if kind == "mps" else (index,)  # there is only one, and no argument for it
            self._devices.append((device, device.get_rng_state(*which), which))

    def put_back(self) -> None:
        """Let all streams go on from here."""
        torch.set_rng_state(self._torch)
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        for device, state, which in self._devices:
            device.set_rng_state(state, *which)
