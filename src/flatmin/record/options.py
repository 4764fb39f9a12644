"""Options of an experiment, typed and checked by its own dataclass."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch


def option_names(config: Any) -> list[str]:
    """Names of the options of a configuration."""
    return [field.name for field in fields(config)]


def configure(config: Any, texts: Mapping[str, str]) -> Any:
    """Change a configuration by options in the form in which they are typed.

    Args:
        config: An instance of a frozen dataclass; not changed.
        texts: Names of fields to texts: a sequence is written as ``1,5,15``, nothing as ``none``.

    Returns:
        A new instance.

    Raises:
        ValueError: If there is no such option, or the text is no value of its type.
    """
    hints = typing.get_type_hints(type(config))
    for name in texts:
        if name not in hints:
            valid = ", ".join(f"{key}={_written(getattr(config, key))}" for key in hints)
            own = f"; one of the optimizer's own is options.{name}" if "options" in hints else ""
            raise ValueError(f"there is no option {name!r}; valid are {valid}{own}.")
    values = {name: _parse(name, text, hints[name]) for name, text in texts.items()}
    if values.get("seeds", 1) < 1:
        raise ValueError(f"seeds must be at least 1, got {values['seeds']}.")
    if "device" in values:
        check_device(values["device"])
    try:
        return replace(config, **values)
    except TypeError as error:  # from a check of the dataclass's own
        raise ValueError(str(error)) from error


def _parse(name: str, text: str, kind: Any) -> Any:
    try:
        return _convert(text.strip(), kind)
    except (ValueError, LookupError):
        raise ValueError(f"{name} must be {_described(kind)}, got {text!r}.") from None


def _convert(text: str, kind: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _first_that_fits(text, arguments)
    if origin is typing.Literal:
        return {str(value): value for value in arguments}[text]
    if origin is tuple:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if arguments[1:] == (Ellipsis,):
            arguments = arguments[:1] * max(len(parts), 1)
        return tuple(_convert(*pair) for pair in zip(parts, arguments, strict=True))
    if kind is bool or kind is type(None):
        return ({"none": None} if kind is not bool else {"true": True, "false": False})[
            text.lower()
        ]
    return kind(text)


def _first_that_fits(text: str, kinds: Sequence[Any]) -> Any:
    """Try None first: every text would do as a str."""
    for kind in sorted(kinds, key=lambda kind: kind is not type(None)):
        try:
            return _convert(text, kind)
        except (ValueError, LookupError):
            continue
    raise ValueError


def _described(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_described(a) for a in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        inner = [_described(a) for a in arguments if a is not Ellipsis]
        return f"({', '.join(inner)}{', …' if Ellipsis in arguments else ''}), comma-separated"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
    return "none" if kind is type(None) else names.get(kind, kind.__name__)


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_written, value))
    return str(value).lower() if value is None or isinstance(value, bool) else f"{value}"


def check_device(name: str) -> None:
    """Refuse a device that this machine lacks, with a ``ValueError`` that names those it has."""
    usable = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.cuda.is_available():
        usable.append("cuda")
    if torch.backends.mps.is_available():
        usable.append("mps")
    if name not in usable:
        raise ValueError(
            f"device must be one this machine has ({', '.join(usable)}), got {name!r}."
        )
