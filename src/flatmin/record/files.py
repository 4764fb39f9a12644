"""Files that are there completely or not at all."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that no reader, and no interruption, ever meets half of it."""
    # A folder's name may hold bytes that are no text; JSON reads \udcff as what stands for them.
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    except OSError as error:
        raise _about(path, error) from error
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())  # mkstemp makes it private
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _about(path, error) from error
        raise


def _about(path: Path, error: OSError) -> OSError:
    """The same error, of the file that was asked for rather than the one that is written first."""
    return OSError(error.errno, error.strerror or str(error), str(path))


def read_json(path: Path) -> Any:
    """What a file of JSON holds; None if there is none, or a damaged one."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None


def write_checked(path: Path, data: bytes) -> None:
    """Write a file behind its digest: torch reads its own files with a flipped bit as they are."""
    write_atomically(path, hashlib.sha256(data).digest() + data)


def read_checked(path: Path) -> bytes | None:
    """What :func:`write_checked` wrote; None if there is nothing, or something damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, data = content[:32], content[32:]
    return data if hashlib.sha256(data).digest() == digest else None


def require_writable(folder: Path) -> None:
    """Make a folder and try it, before anything is computed for it.

    Raises:
        ValueError: If it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"the output folder must be writable, and {folder} is not "
            f"({error.strerror or error}); name another with --out."
        ) from error


@contextmanager
def alone(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Make a folder, and let no other process that asks the same work in it.

    The lock ends with the process, however that ends. Where the system has none, nothing is held.

    Args:
        folder: The folder; whoever holds it may remove it.
        wait: Whether to wait for another process, rather than to be refused.

    Raises:
        ValueError: If another process works in it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with suppress(FileExistsError):
            folder.mkdir()
        if os.name != "posix":
            yield
            return
        import fcntl

        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # whoever held it has just removed it
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(folder, handle):
                yield
                return
        except BlockingIOError:
            raise ValueError(
                f"another process works in {folder}; wait for it, or name another --out."
            ) from None
        finally:
            os.close(handle)


def _is_still(folder: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(folder), os.fstat(handle))
    except FileNotFoundError:
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
