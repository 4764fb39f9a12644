"""Tensors in any arrangement of tuples, lists, mappings and dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to every tensor of an arrangement; what else it holds stays.

    The new arrangement is of the same kind, so that outputs keep their names: ``outputs.logits``.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, PackedSequence):
        data = function(value.data)
        return value.to(data.device)._replace(data=data)  # type: ignore[arg-type]  # torch's stub
    if isinstance(value, Mapping):
        return _filled(value, {key: map_tensors(function, part) for key, part in value.items()})
    if isinstance(value, tuple | list):
        parts = [map_tensors(function, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Not by its constructor, which may do more than keep what it is given.
        filled = copy.copy(value)
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):
                part = map_tensors(function, getattr(value, field.name))
                object.__setattr__(filled, field.name, part)
        return filled
    return value


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor of an arrangement."""
    found: list[Tensor] = []

    def note(t: Tensor) -> Tensor:
        found.append(t)
        return t

    map_tensors(note, value)
    return iter(found)


def _filled(like: Mapping[str, Any], parts: dict[str, Any]) -> Any:
    if type(like) is dict:
        return parts
    # Mappings of other kinds, such as those of transformers, show their entries as attributes.
    filled: Any = copy.copy(like)
    for key, part in parts.items():
        if part is not like[key]:
            filled[key] = part
    return filled
