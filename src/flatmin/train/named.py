"""What a command line names as ``module:callable``."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

import torch
from torch import nn

_PYTHON = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_python(text: str) -> bool:
    """Whether a text names a function, and no file or folder that is there."""
    return not os.path.exists(text) and _PYTHON.fullmatch(text) is not None


def named(text: str) -> Any:
    """Import what is named, as if started in this folder.

    Raises:
        ValueError: If the text is no name, or nothing can be imported by it.

    Example:
        >>> named("torch.nn.functional:mse_loss").__name__
        'mse_loss'
    """
    if not _PYTHON.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a function; write it as module:callable.")
    module, _, name = text.partition(":")
    if module.endswith(".py"):
        raise ValueError(f"{text} names a file; name its module, as in {module[:-3]}:{name}.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # a stranger's module can fail in any way
        raise ValueError(f"{text} cannot be imported: {one_line(error)}.") from error


def call(text: str, seed: int) -> Any:
    """Call what is named without arguments; what it draws from torch depends on the seed alone.

    Raises:
        ValueError: If it cannot be imported, or fails.

    Example:
        >>> call("torch.nn:Identity", 0)
        Identity()
    """
    function = named(text)
    if isinstance(function, nn.Module):
        raise ValueError(
            f"{text} is a network; name a function that makes it and needs no arguments."
        )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return function()
    except Exception as error:  # a stranger's function can fail in any way
        raise ValueError(
            f"{text} failed when called without arguments: {one_line(error)}."
        ) from error


def one_line(error: Exception) -> str:
    """What went wrong in code or files of others, short enough for a sentence."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text[:200]}{'…' if len(text) > 200 else ''}"
