"""A state dict, in the forms in which other people's loops write one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Under these, checkpoints of common loops keep the weights; `network` is ours.
_PLACES = ("network", "state_dict", "model_state_dict", "model")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict, bare or inside a checkpoint, without running any code.

    Args:
        path: A file of ``torch.save``.

    Returns:
        Names to tensors, as they are written.

    Raises:
        ValueError: If the file cannot be read, or holds no weights or several.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's file can fail in any way
        raise ValueError(
            f"{path} cannot be read as a state dict: it is missing, damaged, or holds more than "
            f"tensors and plain values ({type(error).__name__}); of a whole network save what "
            "model.state_dict() gives."
        ) from error
    if _is_weights(held):
        return dict(held)
    inside = {key: held[key] for key in _PLACES if key in held} if isinstance(held, Mapping) else {}
    found = {key: part for key, part in inside.items() if _is_weights(part)}
    if len(found) != 1:
        several = f"several state dicts ({', '.join(found)})" if found else "no state dict"
        raise ValueError(
            f"{path} must hold a state dict, bare or under one of {', '.join(_PLACES)}, got "
            f"{several}; save the one that is meant: torch.save(model.state_dict(), FILE)."
        )
    return dict(next(iter(found.values())))


def fill(model: nn.Module, state: Mapping[str, Tensor], problem: str) -> None:
    """Give a network its weights; a wrapper's prefix, such as ``module.``, is taken off.

    Args:
        model: The network.
        state: Names to tensors.
        problem: What to say if they do not fit.

    Raises:
        ValueError: If names or shapes do not fit.
    """
    try:
        model.load_state_dict(without_prefix(state, model.state_dict()))
    except (RuntimeError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{problem}: {text[:300]}{'…' if len(text) > 300 else ''}") from error


def without_prefix(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off what a wrapper has put before all names, where the names fit then.

    Such are ``module.`` (DataParallel, DDP, ``AveragedModel``, which counts in ``n_averaged``) and
    ``_orig_mod.`` (``torch.compile``).

    Args:
        state: Names to tensors.
        like: Those of the network.

    Returns:
        The same tensors, under the names of the network if a prefix was all that differed.

    Example:
        >>> one = torch.ones(1)
        >>> list(without_prefix({"module._orig_mod.weight": one}, {"weight": one}))
        ['weight']
        >>> list(without_prefix({"module.bias": one}, {"weight": one}))
        ['module.bias']
    """
    names = {name: name for name in state if name != "n_averaged" or name in like}
    while names and set(names.values()) != set(like):
        parts = {name: own.partition(".") for name, own in names.items()}
        if len({first for first, _, _ in parts.values()}) > 1 or not all(
            rest for _, _, rest in parts.values()
        ):
            return dict(state)
        names = {name: rest for name, (_, _, rest) in parts.items()}
    return {own: state[name] for name, own in names.items()}


def _is_weights(held: Any) -> bool:
    if not isinstance(held, Mapping):
        return False
    kinds = [isinstance(held[name], Tensor) or _is_extra(name) for name in held]
    return any(isinstance(part, Tensor) for part in held.values()) and all(kinds)


def _is_extra(name: Any) -> bool:
    """Whether a module keeps there what is no tensor."""
    return str(name).endswith("_extra_state")
