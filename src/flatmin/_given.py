"""What public functions are handed: the wrong thing, or the right one in the wrong place."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor, nn


def plain(value: Any) -> Any:
    """A number of numpy as Python's own, which a checkpoint may hold; all else as it is."""
    single = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0)
    return value.item() if single else value


def make_plain(values: Any) -> None:
    """Take Python's own numbers for those of numpy in the fields of a frozen value."""
    for name in values.__slots__:
        value = getattr(values, name)
        if type(value) is not float:  # balls are made in every step
            object.__setattr__(values, name, plain(value))


def shown(value: object) -> str:
    """A wrong argument for a message: what is not short is named by its type."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"


def check_count(name: str, number: object, least: int) -> None:
    """Refuse a count that is no whole number, or too small.

    Raises:
        TypeError: If it is no whole number.
        ValueError: If it is too small.
    """
    if not isinstance(number, Integral):
        example = int(number) if isinstance(number, float) and number.is_integer() else least
        raise TypeError(f"{name} must be a whole number, such as {example}, got {shown(number)}.")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}.")


def check_network(model: object) -> None:
    """Refuse what is no network.

    Raises:
        TypeError: If it is something else than a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {type(model).__name__}; the network comes "
            "first, as in find_scalings(model, example) and rescale(model, scalings, factors)."
        )


def check_named(params: object) -> None:
    """Refuse what is no mapping of names to tensors.

    Raises:
        TypeError: If it is none.
    """
    if isinstance(params, nn.Module):
        raise TypeError(
            f"params must map names to tensors, got the network {type(params).__name__}; write "
            "{name: p.detach() for name, p in model.named_parameters()}."
        )
    if not isinstance(params, Mapping) or not all(isinstance(t, Tensor) for t in params.values()):
        raise TypeError(f"params must map names to tensors, got {type(params).__name__}.")


def check_objective(objective: object) -> None:
    """Refuse what is no objective.

    Raises:
        TypeError: If it has neither a value nor a derivative at a point.
    """
    if not any(hasattr(objective, name) for name in ("value", "value_and_grad", "hvp")):
        raise TypeError(
            f"objective must be a loss over data, got {type(objective).__name__}; make one by "
            "EmpiricalLoss(model, loss, batches), or by FunctionObjective(function)."
        )
