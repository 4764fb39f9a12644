"""What the bytes of a checkpoint may be before they are read, and its values before they are used.

Reading with ``weights_only=True`` runs no foreign code, but a small file can still keep a reader
busy for ever: a tuple of tuples that share their parts has 2^50 entries when it is hashed, and as
many when it is printed in a message. What ``save_checkpoint`` writes is nothing of the kind.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

# Values in one checkpoint, shared ones counted at each place; a network has some hundred thousand.
_VALUES = 10_000_000
_DEPTH = 100

_LEAVES = (int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, type(None))


def scan_file(contents: io.BytesIO) -> None:
    """Refuse, by ``ValueError``, a file that would unfold into more than it holds."""
    whole = len(contents.getbuffer())
    with zipfile.ZipFile(contents) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1 or len(set(names)) != len(names):
            raise ValueError("it is not laid out as torch.save does")
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > whole:
            raise ValueError("it would unfold into more than it holds")
        _scan_pickle(archive.read(pickles[0]))


def scan_values(state: Any, whole: int) -> None:
    """Refuse, by ``ValueError``, values that hold themselves, or more than ``whole`` bytes each."""
    sizes: dict[int, int] = {}
    open_ids: set[int] = set()

    def size(value: Any, depth: int) -> int:
        if isinstance(value, Tensor):
            dense = value.layout is torch.strided
            if dense and (value.device.type != "cpu" or value.nbytes > whole):
                raise ValueError("a tensor is larger than the file")
            return 1
        if not isinstance(value, dict | list | tuple | set):
            return 1
        if id(value) not in sizes:
            if id(value) in open_ids or depth > _DEPTH:
                raise ValueError("its values are nested too deeply")
            open_ids.add(id(value))
            parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(size(part, depth + 1) for part in parts)
            open_ids.remove(id(value))
        if sizes[id(value)] > _VALUES:
            raise ValueError("it holds too many values")
        return sizes[id(value)]

    size(state, 0)


def odd_value(value: Any, place: str = "state") -> str | None:
    """Name a value that no checkpoint holds, and where it is; None if all can be stored."""
    if isinstance(value, dict):
        parts = [(f"{place}.{key}", each) for key, each in value.items()]
        parts += [(f"a name in {place}", key) for key in value]
    elif isinstance(value, list | tuple | set):
        parts = [(place, each) for each in value]
    else:
        plain = type(value) in (bool, *_LEAVES) or isinstance(value, Tensor)
        return None if plain else f"a {type(value).__name__} in {place}"
    if type(value) not in (dict, OrderedDict, list, tuple, set, torch.Size):
        return f"a {type(value).__name__} in {place}"
    return next((odd for name, each in parts if (odd := odd_value(each, name))), None)


def _scan_pickle(pickle: bytes) -> None:
    """Follow the stack of an unpickler with the number of values in each entry."""
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    argument: Any
    for code, argument, _ in pickletools.genops(pickle):
        if code.name == "MARK":
            marks.append(len(stack))
        elif code.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif code.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif code.name == "GLOBAL" and argument.endswith(" bytearray"):
            raise ValueError("it would make room that it does not fill")
        else:
            before = code.stack_before
            if pickletools.markobject in before:
                start = marks.pop() - before.index(pickletools.markobject)
            else:
                start = len(stack) - len(before)
            if start < 0:
                raise ValueError("it is not what a pickler writes")
            values = 1 + sum(stack[start:])
            if values > _VALUES:
                raise ValueError("it holds too many values")
            stack[start:] = [values] * len(code.stack_after)
