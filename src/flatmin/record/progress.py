"""How far something is, with the time left: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeVar

from flatmin._told import Told

T = TypeVar("T")


def progress(
    iterable: Iterable[T], description: str, naming: Callable[[T], str] | None = None
) -> Iterator[T]:
    """Pass the elements on and show on stderr how far we are.

    Args:
        iterable: What is passed on.
        description: What it is.
        naming: What an element is, shown beside it while it is worked on.
    """
    if sys.stderr.isatty() or not isinstance(iterable, Sized):
        # disable=None: none without a terminal. leave=False: a finished bar makes room.
        bar = _tqdm()(iterable, description, disable=None, leave=False, dynamic_ncols=True)
        for element in bar:
            if naming is not None:
                bar.set_postfix_str(naming(element))
            yield element
        return
    told = Told(len(iterable), description)
    try:
        for element in iterable:
            if naming is not None:
                told.description = f"{description}, {naming(element)}"
            yield element
            told.update()
    finally:
        told.close()


def meter(total: float, description: str) -> Callable[[float], object]:
    """Show on stderr how much of ``total`` is done, and the time left.

    Returns:
        A function that takes what has been done since.
    """
    if not sys.stderr.isatty():
        told = Told(total, description)
        return told.update
    layout = "{l_bar}{bar}| {elapsed} gone, {remaining} left"
    bar = _tqdm()(total=total, desc=description, disable=None, leave=False, bar_format=layout)
    done: Callable[[float], object] = bar.update
    return done


def _tqdm() -> Any:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(
            'The experiments need tqdm and matplotlib: pip install "flatmin[experiments]".'
        ) from error
    return tqdm
