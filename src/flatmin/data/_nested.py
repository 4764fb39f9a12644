"""Inputs of a network: a tensor, several in a row, or several by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def apply(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to every tensor; what else there is (a flag, None) stays."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: apply(function, part) for key, part in value.items()}
    if _is_row(value):
        return tuple(apply(function, part) for part in value)
    return value


def leaves(value: Any, name: str = "inputs") -> Iterator[tuple[str, Any]]:
    """Everything that is no arrangement of other things, with the place where it is."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from leaves(part, f"{name}.{key}")
    elif _is_row(value):
        for number, part in enumerate(value):
            yield from leaves(part, f"{name}[{number}]")
    else:
        yield name, value


def check_examples(inputs: Any, targets: Any, whose: str) -> None:
    """Refuse what is no batch: every input and every target needs its row.

    Raises:
        TypeError: If something is no tensor, or its numbers are of no use here.
        ValueError: If the lengths differ.
    """
    found = [*leaves(inputs), ("targets", targets)]
    if len(found) < 2:
        raise ValueError(f"{whose} must have an input, got none.")
    for name, tensor in found:
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            kind = tensor.layout if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(
                f"{whose} must be made of dense tensors, got {kind} as {name}; turn it into a "
                "tensor, as torch.as_tensor does."
            )
        if not tensor.ndim or len(tensor) != len(targets):
            raise ValueError(
                f"{whose} must have the example as the first dimension of everything, got "
                f"{name} of shape {list(tensor.shape)} for targets of shape "
                f"{list(targets.shape)}."
            )
    if targets.is_complex():
        raise TypeError(f"{whose} must have real targets, got {targets.dtype}.")


def to_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in a floating type; integers and truth values stay what they are."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def digest(into: Any, value: Any) -> None:
    """Add names, types, shapes and bytes to a digest of hashlib."""
    for name, leaf in leaves(value):
        shape = list(leaf.shape) if isinstance(leaf, Tensor) else repr(leaf)
        kind = leaf.dtype if isinstance(leaf, Tensor) else ""
        into.update(f"{name} {kind} {shape}\n".encode())
        if isinstance(leaf, Tensor):
            whole = leaf.detach().cpu().resolve_conj().resolve_neg().contiguous()
            into.update(whole.flatten().view(torch.uint8).numpy().data)


def sha256() -> Any:
    """An empty digest."""
    return hashlib.sha256()


def _is_row(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
