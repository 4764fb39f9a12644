"""Progress bars with the time left."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def progress(iterable: Iterable[T], description: str) -> Iterator[T]:
    """Pass the elements on and show on stderr how far we are; without a terminal, show nothing."""
    # disable=None: none without a terminal. leave=False: a finished bar makes room for the next.
    yield from _tqdm()(iterable, description, disable=None, leave=False, dynamic_ncols=True)


def meter(total: float, description: str) -> Callable[[float], object]:
    """Show on stderr how much of ``total`` is done, and the time left; without a terminal, nothing.

    Returns:
        A function that takes what has been done since.
    """
    tqdm = _tqdm()
    layout = "{l_bar}{bar}| {elapsed} gone, {remaining} left"
    bar = tqdm(total=total, desc=description, disable=None, leave=False, bar_format=layout)
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
