"""A run that is made once: a small file when it is finished, a folder until then."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from flatmin.record.files import alone, read_json, write_atomically
from flatmin.record.provenance import provenance


def kept(
    path: Path, make: Callable[[Path], dict[str, Any]], is_whole: Callable[[Any], bool]
) -> dict[str, Any]:
    """Take what is kept, or make it.

    Whoever asks for what another process is making waits for it.

    Args:
        path: The file of the finished run.
        make: Makes it; gets the folder that an interrupted run left its parts in.
        is_whole: Whether what a file holds is a finished run; a damaged one is made again.

    Returns:
        The run, with the ``commit`` at which it was made.
    """
    numbers: dict[str, Any] = read_json(path)
    if is_whole(numbers):
        return numbers
    parts = path.with_suffix("")
    with alone(parts, wait=True):
        numbers = read_json(path)  # another process may have been faster
        if not is_whole(numbers):
            numbers = {**make(parts), "commit": commit()}
            write_atomically(path, json.dumps(numbers))
        shutil.rmtree(parts, ignore_errors=True)
    return numbers


@cache
def commit() -> str:
    """The commit of the code in use, with a plus where it has other changes."""
    origin = provenance({})
    return f"{origin['commit'][:10]}{'+' if origin['dirty'] else ''}"
