"""Which parameters of a test the fast suite tries: the others are marked `slow`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(values: Iterable[Any], *fast: Any) -> list[Any]:
    """Values for `parametrize`, in their order, of which all but the named ones are slow.

    Tuples are the values of several arguments. One that is named and not there is an error, or a
    test could lose its fast part without a word.
    """
    every = list(values)
    if absent := [value for value in fast if value not in every]:
        raise ValueError(f"the values hold no {absent}")
    return [value if value in fast else _slow(value) for value in every]


def _slow(value: Any) -> Any:
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=pytest.mark.slow)
