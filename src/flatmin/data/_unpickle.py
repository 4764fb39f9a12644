"""Reading the pickles of the official archives without trusting them.

A pickle is a program. Its instructions for plain data are carried out here, one by one; Python's
own unpickler would also hash what it is given, which a nested tuple makes endless.
"""

import math
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np


def unpickle(data: bytes, name: str) -> dict[Any, Any]:
    """Arrays, lists, dicts, strings, bytes and numbers out of a pickled dict, and nothing else.

    Args:
        data: A pickle, as Python 2 or 3 writes it.
        name: What to call it in an error.

    Returns:
        The dict; its keys are strings or bytes, its arrays of uint8, and the strings that Python 2
        wrote come as bytes.

    Raises:
        ValueError: If the pickle is damaged, holds no dict, or asks for anything else. Whatever it
            asks for is not run, and neither its time nor its memory grow beyond its size.

    Example:
        >>> import pickle
        >>> unpickle(pickle.dumps({b"labels": [3, 1]}), "batch")
        {b'labels': [3, 1]}
        >>> unpickle(pickle.dumps({b"labels": print}), "batch")
        Traceback (most recent call last):
        ValueError: batch asks for builtins.print, which is no data: it may be hostile, and none of
        it was run; get the official archive again.
    """
    try:
        found = _Machine(len(data)).run(data)
    except _ForbiddenError as error:
        raise ValueError(
            f"{name} asks for {error}, which is no data: it may be hostile, and none of it was "
            "run; get the official archive again."
        ) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(
            f"{name} is no readable pickle of CIFAR images ({type(error).__name__}: {error}): it "
            "is truncated, damaged or foreign; get the official archive again."
        ) from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{name} holds a {type(found).__name__}, expected a dict of images and labels; "
            "get the official archive again."
        )
    # An array that was announced but never filled becomes None.
    return {k: v.array if isinstance(v, _Array) else v for k, v in found.items()}


class _ForbiddenError(Exception):
    """A name that the pickle asked for."""


class _Uint8:
    """Stands in for the type of unsigned bytes."""

    def build(self, state: object) -> None:
        """Ignore byte order and alignment, which a byte does not have."""


class _Array:
    """Stands in for numpy's array, which would trust the pickle about types and memory."""

    array: Any = None

    def build(self, state: Any) -> None:
        """Fill it: version, shape, type, order, bytes."""
        _version, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Uint8) or type(raw) is not bytes:
            raise TypeError("an array that is not of uint8")
        small = type(shape) is tuple and len(shape) <= 4
        if not small or not all(type(n) is int and 0 <= n <= len(raw) for n in shape):
            raise ValueError("an array whose bytes do not fill its shape")
        if len(raw) != math.prod(shape):
            raise ValueError("an array whose bytes do not fill its shape")
        self.array = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


_NAMES = {
    "numpy.core.multiarray _reconstruct": "array",
    "numpy._core.multiarray _reconstruct": "array",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}
_MARK = object()
_PLAIN = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NEW: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Global:
    """One of the few names that data need."""

    def __init__(self, role: str) -> None:
        self.role = role


class _Machine:
    """Carries out a pickle's instructions on a stack of values."""

    def __init__(self, size: int) -> None:
        self.size = self.room = size
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """Give what the pickle describes."""
        for opcode, argument, _ in pickletools.genops(data):
            self._step(opcode.name, argument)
        return self.stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _PLAIN:
            stack.append(argument)
        elif name in ("STRING", "BINSTRING", "SHORT_BINSTRING"):
            stack.append(argument.encode("latin1"))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _NEW:
            stack.append(_NEW[name]())
        elif name in _TUPLES:
            stack.append(tuple(self._take(_TUPLES[name])))
        elif name == "MARK":
            stack.append(_MARK)
        elif name.endswith("PUT") or name == "MEMOIZE":
            slot = len(self.memo) if name == "MEMOIZE" else int(argument)
            if slot > self.size:
                raise ValueError(f"memo slot {slot}")
            self.memo[slot] = stack[-1]
        elif name.endswith("GET"):
            stack.append(self.memo[int(argument)])
        elif name in ("GLOBAL", "INST"):
            stack.append(_global(argument))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            if not isinstance(module, str) or not isinstance(attribute, str):
                raise TypeError("a name that is no text")
            stack.append(_global(f"{module} {attribute}"))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._call(function.role, arguments))
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].build(state)
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._collect(name)

    def _collect(self, name: str) -> None:
        """Put what was pushed last into a list, tuple or dict."""
        stack = self.stack
        if name in ("APPEND", "SETITEM"):
            items = self._take(1 if name == "APPEND" else 2)
        else:
            items = []
            while (item := stack.pop()) is not _MARK:
                items.append(item)
            items.reverse()
        if name in ("APPEND", "APPENDS"):
            list.extend(stack[-1], items)
        elif name in ("SETITEM", "SETITEMS"):
            dict.update(stack[-1], _pairs(items))
        elif name == "LIST":
            stack.append(items)
        elif name == "TUPLE":
            stack.append(tuple(items))
        elif name == "DICT":
            stack.append(_pairs(items))
        else:
            raise ValueError(f"the instruction {name}")

    def _take(self, count: int) -> list[Any]:
        return [self.stack.pop() for _ in range(count)][::-1]

    def _call(self, role: str, arguments: Any) -> Any:
        if role == "array":
            return _Array()
        if role == "dtype" and arguments[0] in (b"u1", "u1"):
            return _Uint8()
        if role == "encode":  # how Python 3 writes bytes for Python 2
            text, encoding = arguments
            if type(text) is str and encoding in (b"latin1", "latin1"):
                self.room -= len(text)
                if self.room < 0:  # the same text again and again
                    raise ValueError("more bytes than the pickle has")
                return text.encode("latin1")
        raise TypeError("an array that is not of uint8, or bytes in an unknown encoding")


def _global(text: str) -> _Global:
    if text not in _NAMES:
        raise _ForbiddenError(text.replace(" ", "."))
    return _Global(_NAMES[text])


def _pairs(items: list[Any]) -> dict[str | bytes, Any]:
    keys, values = items[::2], items[1::2]
    if not all(type(key) in (str, bytes) for key in keys):
        raise TypeError("a key that is no text")
    return dict(zip(keys, values, strict=True))
