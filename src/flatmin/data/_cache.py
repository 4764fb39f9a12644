"""Decoded images kept in a folder of the user's choice."""

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flatmin.data._part import Part


def cached(file: Path, folder: Path, decode: Callable[[], Part], *, recipe: str) -> Part:
    """What ``decode`` makes of a file, kept as .npz under the hash of the file and the recipe.

    The cache is written under another name and renamed, so a broken run leaves none; a damaged one
    is made again.
    """
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    digest.update(recipe.encode())
    path = folder / f"cifar-{digest.hexdigest()[:32]}.npz"
    if path.is_file():
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
                return Part(kept["images"], kept["labels"], bool(kept["lossy"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            path.unlink()
    part = decode()
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as sink:
            np.savez(sink, images=part.images, labels=part.labels, lossy=np.bool_(part.lossy))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return part
