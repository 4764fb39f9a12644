"""A training run as plain values, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from flatmin.train.distributed import gathered, spread_like
from flatmin.train.history import Epoch
from flatmin.train.state import State
from flatmin.train.stops import Diverged

_PLACE = ("epoch", "batch", "step", "gradients", "seen", "seconds")


def pack(state: State) -> dict[str, Any]:
    """Everything that is needed to go on with the same bits, as plain values on the CPU."""
    return {
        "network": sound_weights(state),
        "optimizer": gathered(state.optimizer.state_dict()),
        "scaler": state.scaler.state_dict(),
        "random": state.team.gather(_random_state(state.team.device)),
        "order": state.order,
        "place": {name: getattr(state, name) for name in _PLACE},
        "totals": state.team.sum(state.totals).cpu(),
        "history": [dataclasses.asdict(record) for record in state.history],
    }


def sound_weights(state: State) -> dict[str, Tensor]:
    """The network's tensors, whole and on the CPU; ``Diverged`` if one is not finite."""
    network: dict[str, Tensor] = gathered(state.network.state_dict())
    for name, value in network.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise Diverged(f"The weights ({name}) are not finite after step {state.step}")
    return network


def unpack(state: State, saved: dict[str, Any]) -> None:
    """Go back to what ``pack`` described."""
    with torch.no_grad():
        for name, own in state.network.state_dict().items():
            own.copy_(spread_like(saved["network"][name], own))
    params = [p for group in state.optimizer.param_groups for p in group["params"]]
    moments = {
        index: {
            key: spread_like(value, params[index])
            if isinstance(value, Tensor) and value.shape == params[index].shape
            else value
            for key, value in moment.items()
        }
        for index, moment in saved["optimizer"]["state"].items()
    }
    state.optimizer.load_state_dict({**saved["optimizer"], "state": moments})
    state.scaler.load_state_dict(saved["scaler"])
    state.order = saved["order"]
    state.generator.set_state(state.order)
    for name in _PLACE:
        setattr(state, name, saved["place"][name])
    # Summed over the processes when saved; so one of them holds it now.
    state.totals.copy_(saved["totals"] if state.team.rank == 0 else torch.zeros(2))
    state.history = [Epoch(**record) for record in saved["history"]]
    _set_random_state(saved["random"][state.team.rank], state.team.device)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
