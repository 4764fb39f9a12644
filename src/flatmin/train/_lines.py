"""A file of lines that only grows, and in which every line is whole."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatmin.train.checkpoint import NotWritable


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the file, and the digest of all that stands before it."""

    size: int
    digest: str


class Lines:
    """The file, held by this process alone for as long as it is open.

    Args:
        path: Where it is; made if missing.

    Raises:
        NotWritable: If the file cannot be written.
        ValueError: If another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    def _open(self) -> None:
        with self._writing():
            # Unbuffered: what a full disk has refused must not wait to be written once more.
            self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115
        _claim(self._file, self.path)
        self._size = os.fstat(self._file.fileno()).st_size

    def begin(self, mark: Mark | None) -> bool:
        """Go on behind a mark; what was written after it is dropped.

        What does not agree with the mark, or stands there without one, is set aside under another
        name, with a warning where that is a damage.

        Returns:
            Whether all that was written before the mark is still there.
        """
        if mark is not None and self._mark(mark.size) == mark:
            self._cut(mark.size)
            return True
        if mark is not None:
            warnings.warn(
                f"{self.path} is not what the run wrote before its checkpoint: it was cut off, "
                "altered or removed. It is written anew; what is left of it is set aside.",
                RuntimeWarning,
                stacklevel=2,
            )
        if self._size:
            with self._writing():
                self.path.rename(_free(self.path))
            old = self._file
            self._open()
            old.close()  # held until the new one is
        return False

    def add(self, line: str) -> None:
        """Write a line, or nothing of it."""
        rest = memoryview(f"{line}\n".encode())
        whole = self._size + len(rest)
        with self._writing():
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                self._cut(self._size)
                raise
        self._size = whole

    def mark(self) -> Mark:
        """Put everything on the disk, and name the place behind it."""
        with self._writing():
            os.fsync(self._file.fileno())
        return self._mark(self._size)

    def close(self) -> None:
        """Close the file, and let others have it."""
        self._file.close()

    def _mark(self, size: int) -> Mark:
        self._file.seek(0)
        digest, left = hashlib.sha256(), size
        while left and (part := self._file.read(min(left, 1 << 20))):
            digest.update(part)
            left -= len(part)
        return Mark(size - left, digest.hexdigest()[:16])

    def _cut(self, size: int) -> None:
        os.ftruncate(self._file.fileno(), size)
        self._size = size

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NotWritable(
                f"{self.path} cannot be written ({error.strerror}); make room or fix the folder, "
                "and resume: checkpoints that were written before are intact."
            ) from error


def _free(path: Path) -> Path:
    """A name beside that of a file, which nothing has yet."""
    number = 1
    while (free := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    return free


def _claim(file: Any, path: Path) -> None:
    """Lock the file for as long as this process lives, so that no two runs share a folder."""
    try:
        import fcntl
    except ImportError:  # no such lock on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ValueError(
            f"Another process is training in {path.parent}; wait for its end, or name another "
            "folder."
        ) from error
    except OSError:
        return  # a file system without locks
