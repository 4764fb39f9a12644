"""Reading the pickles of the official archives without trusting them."""

import io
import math
import pickle
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
        The dict; its arrays are of uint8, and the strings that Python 2 wrote come as bytes.

    Raises:
        ValueError: If the pickle is damaged, holds no dict, or asks for anything else. Whatever it
            asks for is not run.

    Example:
        >>> unpickle(pickle.dumps({b"labels": [3, 1]}), "batch")
        {b'labels': [3, 1]}
        >>> unpickle(pickle.dumps({b"labels": print}), "batch")
        Traceback (most recent call last):
        ValueError: batch asks for builtins.print, which is no data: it may be hostile, and none of
        it was run; get the official archive again.
    """
    try:
        _check_memo(data)
        found = _Unpickler(io.BytesIO(data), encoding="bytes").load()
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
    return {
        # An array that was announced but never filled has no attribute and becomes None.
        key: getattr(value, "array", None) if isinstance(value, _Array) else value
        for key, value in found.items()
    }


def _check_memo(data: bytes) -> None:
    """Refuse numbers of memo slots that would make the unpickler allocate all of the memory."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name.endswith("PUT") and int(argument or 0) > len(data):
            raise ValueError(f"memo slot {argument}")


class _ForbiddenError(Exception):
    """A name that the pickle asked for."""


class _Uint8:
    """Stands in for the type of unsigned bytes."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment, which a byte does not have."""


class _Array:
    """Stands in for numpy's array, which would trust the pickle about types and memory."""

    __slots__ = ("array",)

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Uint8) or type(raw) is not bytes:
            raise TypeError("an array that is not of uint8")
        if len(raw) != math.prod(shape):
            raise ValueError("an array whose bytes do not fill its shape")
        self.array = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


# The only calls a pickle can make. They take nothing but *arguments, which they check or ignore.
def _new_array(*_arguments: object) -> _Array:
    return _Array()


def _new_dtype(*arguments: object) -> _Uint8:
    if not arguments or arguments[0] not in {b"u1", "u1"}:
        raise TypeError("an array that is not of uint8")
    return _Uint8()


def _encode(*arguments: object) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    text, encoding = arguments
    if not isinstance(text, str) or encoding not in {b"latin1", "latin1"}:
        raise TypeError("bytes in an unknown encoding")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Callable[..., object] | str] = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _new_dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _ForbiddenError(f"{module}.{name}") from None
