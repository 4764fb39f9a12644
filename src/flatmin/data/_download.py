"""Fetching a file from the web: whole and checked, or not there."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

_CHUNK = 2**20
_TIMEOUT = 30.0  # seconds without a byte


class DownloadError(RuntimeError):
    """A download broke off, or brought something else than it should."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A file on the web, and how to know it: ``size`` in bytes, ``sha256`` in hexadecimal."""

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]


def fetch(archive: Archive, folder: Path) -> Path:
    """Fetch a file, unless it is there.

    What has arrived is kept under another name, so that a download that broke off goes on where it
    stopped; the file appears under its own name when its digest is the known one. Several
    processes may ask at once: one fetches, the others wait. On a terminal a bar shows how far.
    A file that is there already is compared with the digest, and left alone.

    Args:
        archive: What to fetch.
        folder: Where it goes; made if missing.

    Returns:
        The file.

    Raises:
        ValueError: If the folder cannot be written, or another file of that name is there.
        DownloadError: If the site cannot be reached, the connection breaks off, or what came is
            not the file.
    """
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            require(archive, path)
            return path
        with open(part, "ab+") as file:
            _wait_for_others(file)
            if path.exists():  # another process was faster
                part.unlink(missing_ok=True)
                return path
            _receive(archive, file)
            _check(archive, file)
            os.replace(part, path)
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written ({error.strerror}); make room, or name another folder."
        ) from error
    return path


def require(archive: Archive, path: Path) -> None:
    """Compare a file that is there with the digest of what it seems to be.

    Args:
        archive: What it seems to be.
        path: The file.

    Raises:
        ValueError: If it is another file.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file; move it, or name another folder.")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != archive.sha256:
        raise ValueError(
            f"{path} is not the official {archive.name}: its SHA-256 is {digest}, expected "
            f"{archive.sha256}; it is damaged or foreign: remove it, and get it again."
        )


def _receive(archive: Archive, file: IO[bytes]) -> None:
    """Append what is missing."""
    done = file.seek(0, os.SEEK_END)
    if done >= archive.size:  # broke off just before the end
        return
    with _bar(archive) as bar:
        for at, chunk in _arriving(archive, done):
            if at != done:
                file.truncate(at)
            file.write(chunk)
            done = at + len(chunk)
            if bar is not None:
                bar.update(done - bar.n)
    file.flush()
    os.fsync(file.fileno())


def _arriving(archive: Archive, start: int) -> Iterator[tuple[int, bytes]]:
    """Pieces of the file with their places, from ``start`` on if the site can do that."""
    at, reason = start, "the connection was closed"
    try:
        request = urllib.request.Request(archive.url, headers={"Range": f"bytes={start}-"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            at = start if response.status == http.client.PARTIAL_CONTENT else 0
            _check_answer(archive, response.headers, at, keep=start)
            while at <= archive.size and (chunk := response.read(_CHUNK)):
                yield at, chunk
                at += len(chunk)
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error))
    if at < archive.size:
        raise DownloadError(
            f"{archive.url} broke off after {at:,} of {archive.size:,} bytes ({reason}); the same "
            "command goes on from there."
        )


def _check_answer(archive: Archive, headers: Message, at: int, *, keep: int) -> None:
    """Refuse a page, or another file, before it takes the place of what has arrived."""
    length, expected = headers.get("Content-Length", ""), archive.size - at
    fits = int(length) == expected if length.isdigit() else not keep
    if not keep and length.isdigit():
        fits = int(length) >= expected  # a longer one is told by its digest
    if not fits or headers.get("Content-Type", "").startswith("text/html"):
        raise DownloadError(
            f"{archive.url} was answered by something else ({length or 'an unknown number of'} "
            f"bytes of {headers.get('Content-Type', 'unknown type')}, expected {expected:,}): "
            f"a page, perhaps, or another file. The {keep:,} bytes that had arrived are kept; try "
            f"again, or get {archive.name} elsewhere."
        )


def _check(archive: Archive, file: IO[bytes]) -> None:
    """Throw away what is not the archive."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    if digest != archive.sha256:
        file.truncate(0)
        raise DownloadError(
            f"{archive.url} brought another file: its SHA-256 is {digest}, expected "
            f"{archive.sha256}. It was thrown away; try again, or get {archive.name} elsewhere."
        )


def _wait_for_others(file: IO[bytes]) -> None:
    """Lock the file until it is closed, where the system can."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)


def _bar(archive: Archive) -> Any:
    """A progress bar on a terminal, where tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return nullcontext()  # a bar is a courtesy
    return tqdm(
        total=archive.size, desc=archive.name, unit="B", unit_scale=True, disable=None, leave=False
    )
