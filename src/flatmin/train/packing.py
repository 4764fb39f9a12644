"""A training run as plain values, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.train._conditions import random_state, set_random_state
from flatmin.train._own_network import set_switches, switches
from flatmin.train.checkpoint import CheckpointError
from flatmin.train.distributed import gathered, spread_like
from flatmin.train.history import Epoch
from flatmin.train.state import State
from flatmin.train.stops import Diverged

_PLACE = ("epoch", "batch", "step", "gradients", "seen", "seconds")


def pack(state: State) -> dict[str, Any]:
    """Everything that is needed to go on with the same bits, as plain values on the CPU."""
    return {
        "network": sound_weights(state),
        "buffers": gathered(_buffers_beside(state.network)),
        "switches": switches(state.network),
        "optimizer": gathered(state.optimizer.state_dict()),
        "scaler": state.scaler.state_dict(),
        "random": state.team.gather(random_state(state.team.device)),
        "order": state.order,
        "place": {name: getattr(state, name) for name in _PLACE},
        "totals": state.team.sum(state.totals).cpu(),
        "history": [dataclasses.asdict(record) for record in state.history],
    }


def sound_weights(state: State) -> dict[str, Any]:
    """The network's state, whole and on the CPU; ``Diverged`` if a tensor ceased to be finite.

    A buffer may hold infinities from the start, as a mask of attention does.

    Raises:
        Diverged: Naming the tensor.
    """
    network: dict[str, Any] = gathered(state.network.state_dict())
    for name, value in network.items():
        if name not in state.unbounded and not _is_finite(value):
            raise Diverged(f"The weights ({name}) are not finite after step {state.step}")
    return network


def unpack(state: State, saved: dict[str, Any]) -> None:
    """Go back to what ``pack`` described; ``CheckpointError`` if it described something else."""
    try:
        _restore(state, saved)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"The checkpoint does not hold what it should ({type(error).__name__}: {error}); it is "
            "not one that this program wrote for this network: start in another folder."
        ) from error


def _restore(state: State, saved: dict[str, Any]) -> None:
    _fill(state.network, saved["network"], saved["buffers"])
    set_switches(state.network, saved["switches"])
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
    state.totals.zero_()
    if state.team.rank == 0:
        state.totals.copy_(saved["totals"])
    state.history = [Epoch(**record) for record in saved["history"]]
    set_random_state(saved["random"][state.team.rank], state.team.device)


def _fill(network: nn.Module, saved: dict[str, Any], beside: dict[str, Tensor]) -> None:
    """Load parameters, buffers and extra state, as the modules themselves do it."""
    for name, value in {**saved, **beside}.items():
        _make_room(network, name, value)
    own = network.state_dict()
    spread = {
        name: spread_like(value, own[name])
        if isinstance(value, Tensor) and isinstance(own.get(name), Tensor)
        else value
        for name, value in saved.items()
    }
    try:
        network.load_state_dict(spread)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"The checkpoint cannot be put back into this network ({reason}); start again in "
            "another folder, with a network whose parameters keep their names and shapes."
        ) from error
    with torch.no_grad():
        for name, value in beside.items():
            network.get_buffer(name).copy_(value)


def _make_room(network: nn.Module, name: str, value: Any) -> None:
    """Give a buffer that was made or reshaped in training its place."""
    path, _, leaf = name.rpartition(".")
    try:
        owner = network.get_submodule(path)
    except AttributeError:
        return  # no buffer; loading will say so
    if leaf not in owner._buffers or not isinstance(value, Tensor):
        return
    own = owner._buffers[leaf]
    like = next((t for t in (own, *network.parameters()) if t is not None), value)
    if own is None or own.shape != value.shape or own.dtype != value.dtype or _is_shared(own):
        owner._buffers[leaf] = torch.empty_like(value, device=like.device)


def _is_shared(tensor: Tensor) -> bool:
    """Whether several entries are one number, as ``expand`` makes them: they cannot be written."""
    pairs = (
        zip(tensor.shape, tensor.stride(), strict=True) if tensor.layout is torch.strided else ()
    )
    return any(size > 1 and stride == 0 for size, stride in pairs)


def _buffers_beside(network: nn.Module) -> dict[str, Tensor]:
    """The buffers that are not part of the state dict."""
    kept = network.state_dict().keys()
    return {name: value for name, value in network.named_buffers() if name not in kept}


def _is_finite(value: Any) -> bool:
    if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
        return True
    return bool(value.isfinite().all())
