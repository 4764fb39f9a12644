"""Values of a configuration: made plain, and checked against the annotation of what takes them.

Configurations are written by people, read from JSON or YAML, and made of what a sweep computed
with numpy. A value that only looks right (the text "false", a numpy float that no checkpoint may
hold) would be found hours later, or never.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

_PLAIN = (int, float, bool, str, dict, tuple, type(None))
_NAMES = {int: "an integer", float: "a number", bool: "True or False", str: "a text"}


class _Misfit(Exception):
    """A value is not of the kind that is asked."""


def fitted(name: str, value: Any, kind: Any, *, infinite: bool = False) -> Any:
    """Turn a value into a plain one of the annotated kind.

    Args:
        name: What it is called, for the message.
        value: Numbers of numpy and torch become Python's, sequences tuples.
        kind: An annotation; what is none of Python's plain types is not checked.
        infinite: Whether infinity is allowed, also as the text ``inf``, for JSON has none.

    Returns:
        The plain value; an integer where a number is asked becomes a float.

    Raises:
        TypeError: If the value is of another kind. Texts are no numbers, numbers no booleans.
        ValueError: If a number in it is not finite.

    Example:
        >>> fitted("lr", np.float64(0.5), float), fitted("betas", [0.9, 1], tuple[float, float])
        (0.5, (0.9, 1.0))
        >>> fitted("compile", "false", bool)
        Traceback (most recent call last):
        TypeError: compile must be True or False, got the text 'false'.
    """
    if infinite and isinstance(value, str) and value.lower().strip("+") in ("inf", "infinity"):
        value = math.inf
    value = _plain(name, value, infinite)
    try:
        return _convert(value, kind)
    except (_Misfit, OverflowError):
        raise TypeError(f"{name} must be {_described(kind)}, got {_shown(value)}.") from None


def _plain(name: str, value: Any, infinite: bool) -> Any:
    """Python's own types, all the way down."""
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of an enumeration, its value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isnan(value) or (math.isinf(value) and not infinite):
            raise ValueError(f"{name} must be finite, got {value}.")
        return float(value)
    if isinstance(value, Mapping):
        odd = [key for key in value if not isinstance(key, str)]
        if odd:
            raise TypeError(f"{name} must have texts as names, got {odd[0]!r}.")
        return {str(key): _plain(f"{name}.{key}", entry, False) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return tuple(_plain(name, entry, False) for entry in value)
    raise TypeError(
        f"{name} must be a plain value that can be stored: a number, a text, True, False, None, or "
        f"a sequence of them, got {_shown(value)}."
    )


def _convert(value: Any, kind: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _first_that_fits(value, arguments)
    if origin is tuple and arguments:
        if arguments[1:] == (Ellipsis,):
            arguments = arguments[:1] * len(value) if isinstance(value, tuple) else arguments
        if not isinstance(value, tuple) or len(value) != len(arguments):
            raise _Misfit
        return tuple(_convert(*pair) for pair in zip(value, arguments, strict=True))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    exact = {Mapping: dict}.get(origin or kind, origin or kind)
    # A boolean is an integer to Python, and to nobody else. What is plain is never a tensor.
    if exact is torch.Tensor or (exact in _PLAIN and type(value) is not exact):
        raise _Misfit
    return value


def _first_that_fits(value: Any, kinds: Sequence[Any]) -> Any:
    for kind in kinds:
        try:
            return _convert(value, kind)
        except _Misfit:
            continue
    raise _Misfit


def _described(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        parts = [_described(each) for each in arguments if each is not torch.Tensor]
        return " or ".join(parts)
    if origin is tuple:
        return f"({', '.join(_described(each) for each in arguments if each is not Ellipsis)})"
    if origin is Mapping:
        return "a dictionary"
    return "None" if kind is type(None) else _NAMES.get(kind, getattr(kind, "__name__", str(kind)))


def _shown(value: Any) -> str:
    text = repr(value)
    text = f"{text[:100]}…" if len(text) > 100 else text
    return f"the text {text}" if isinstance(value, str) else text
