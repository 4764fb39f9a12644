"""The official CIFAR files, in a folder or a tar archive: pickles and binary records."""

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

import numpy as np

from flatmin.data._part import Part
from flatmin.data._unpickle import unpickle

PIXELS = 3 * 32 * 32
# The largest official file, the training images of CIFAR-100, has 155 MB.
_LARGEST_MEMBER = 512 * 2**20


def read_files(place: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Contents of the wanted files of a folder or tar archive, by name; nothing is unpacked."""
    if place.is_dir():
        paths = {name: place / name for name in wanted}
        return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(place, "r:*") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if name not in wanted or not member.isfile():
                    continue
                if member.size > _LARGEST_MEMBER:
                    raise ValueError(
                        f"{place} holds {name} with {member.size:,} bytes, more than any file of "
                        "CIFAR: it is foreign or hostile; get the official archive again."
                    )
                content = archive.extractfile(member)
                if content is not None:
                    found[name] = content.read()
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{place} is no readable tar archive: it is truncated, damaged or foreign; get the "
            "official archive again."
        ) from error
    return found


def parse_pickle(data: bytes, name: str, label_key: str) -> Part:
    """A batch of the python archive."""
    batch = unpickle(data, name)
    pixels, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", label_key))
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.ndim != 2
        or pixels.shape[1] != PIXELS
        or not isinstance(labels, list)
        or not all(type(label) is int for label in labels)
    ):
        raise ValueError(
            f"{name} holds {sorted(map(str, batch))}, expected 'data' with rows of {PIXELS} bytes "
            f"and '{label_key}' with a list of integers; get the official archive again."
        )
    if len(pixels) != len(labels):
        raise ValueError(
            f"{name} holds {len(pixels)} images and {len(labels)} labels, expected as many: it is "
            "damaged; get the official archive again."
        )
    return Part(pixels.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64))


def parse_binary(data: bytes, name: str, label_bytes: int) -> Part:
    """A file of the binary archive."""
    record = label_bytes + PIXELS
    if len(data) % record:
        raise ValueError(
            f"{name} has {len(data):,} bytes, expected a multiple of {record}, the size of a "
            "record: it is truncated or foreign; get the official archive again."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    # CIFAR-100 puts the coarse label first; the last label byte is the class.
    labels = records[:, label_bytes - 1].astype(np.int64)
    return Part(records[:, label_bytes:].reshape(-1, 3, 32, 32), labels)
