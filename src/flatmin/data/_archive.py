"""The official CIFAR files, in a folder or a tar archive: pickles and binary records."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import numpy as np

from flatmin.data._part import Part, as_labels
from flatmin.data._unpickle import unpickle

PIXELS = 3 * 32 * 32
# All official files together have 186 MB.
_LARGEST = 512 * 2**20
_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZ": bz2.open,
    b"\xfd7": lzma.open,
}


def read_files(place: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Contents of the wanted files of a folder or tar archive, by name; nothing is unpacked."""
    if place.is_dir():
        paths = [path for name in wanted if (path := place / name).is_file()]
        for path in paths:
            if path.stat().st_size > _LARGEST:
                raise _TooLargeError(path)
        return {path.name: path.read_bytes() for path in paths}
    try:
        return _read_archive(place, wanted)
    except _TooLargeError:
        raise
    except Exception as error:  # a damaged archive can raise anything
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, or permissions
            raise ValueError(f"{place} cannot be read ({error.strerror}); name another.") from error
        raise ValueError(
            f"{place} is no readable tar archive: it is truncated, damaged or foreign; get the "
            "official archive again."
        ) from error


def _read_archive(place: Path, wanted: Collection[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with place.open("rb") as raw:
        start = raw.read(2)
        raw.seek(0)
        with cast("IO[bytes]", _OPENERS.get(start, _as_it_is)(raw, "rb")) as plain:
            counted = _Counted(plain, place)
            with tarfile.open(fileobj=cast("Any", counted), mode="r|") as archive:
                for member in archive:
                    name = PurePosixPath(member.name).name
                    if name in wanted and member.isfile():
                        counted.expect(member.size)  # of a sparse file, more than the archive has
                        content = archive.extractfile(member)
                        found[name] = b"" if content is None else content.read()
            # Compressed files keep their check at the end, behind what a tar archive needs.
            while counted.read(2**20):
                pass
    return found


class _TooLargeError(ValueError):
    """A file or an archive that is larger than anything of CIFAR."""

    def __init__(self, place: Path) -> None:
        super().__init__(
            f"{place} holds more than {_LARGEST:,} bytes, and all of CIFAR has 186 million: it is "
            "foreign or hostile; get the official archive again."
        )


class _Counted:
    """A stream that ends in an error where it is longer than anything of CIFAR."""

    def __init__(self, stream: IO[bytes], place: Path) -> None:
        self.stream, self.place = stream, place
        self.room = self.wanted = _LARGEST

    def read(self, size: int) -> bytes:
        """Read, and count."""
        data = self.stream.read(size)
        self.room -= len(data)
        if self.room < 0:
            raise _TooLargeError(self.place)
        return data

    def expect(self, size: int) -> None:
        """Count what is about to be kept."""
        self.wanted -= size
        if self.wanted < 0:
            raise _TooLargeError(self.place)


def _as_it_is(raw: IO[bytes], _mode: str) -> IO[bytes]:
    return raw


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
        keys = sorted(str(key)[:40] for key in batch)
        raise ValueError(
            f"{name} holds {keys[:9]}, expected 'data' with rows of {PIXELS} bytes "
            f"and '{label_key}' with a list of integers; get the official archive again."
        )
    if len(pixels) != len(labels):
        raise ValueError(
            f"{name} holds {len(pixels)} images and {len(labels)} labels, expected as many: it is "
            "damaged; get the official archive again."
        )
    return Part(pixels.reshape(-1, 3, 32, 32), as_labels(labels, name))


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
