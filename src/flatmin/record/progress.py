"""Progress bars with the time left."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(iterable: Iterable[T], description: str) -> Iterator[T]:
    """Pass the elements on and show on stderr how far we are; without a terminal, show nothing."""
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(
            'The experiments need tqdm and matplotlib: pip install "flatmin[experiments]".'
        ) from error
    # disable=None: none without a terminal. leave=False: a finished bar makes room for the next.
    yield from tqdm(iterable, description, disable=None, leave=False, dynamic_ncols=True)
