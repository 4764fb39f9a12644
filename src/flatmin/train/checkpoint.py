"""Checkpoints that are whole or not there, and are refused when they are not what was written.

A file appears under its name only when all of it is on the disk, and the name holds a digest of the
contents: ``step-000001200-5f3a…c1.pt``. It is read with ``weights_only=True``, so it can run no
code, whoever made it, and what would unfold into more than it holds is refused unread.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from flatmin.train._scan import odd_value, scan_file, scan_values

_NAME = re.compile(r"step-(\d{9,})-([0-9a-f]{16})\.pt")
_UNFINISHED = ".unfinished.pt"
_STEP = "written as step"  # beside the state, so that a file cannot take another's place


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read."""


class NotWritable(CheckpointError):
    """The folder of a run cannot be written: it is full, read-only or gone."""


def checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a folder, the newest first; whether they are sound is not asked.

    Args:
        folder: Where a run writes; need not exist.

    Returns:
        Their paths.

    Raises:
        CheckpointError: If the folder cannot be listed.

    Example:
        >>> checkpoints(Path("no such folder"))
        []
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:  # a folder that cannot be read is not an empty one
        raise CheckpointError(f"{folder} cannot be listed ({error.strerror}).") from error
    found = [folder / name for name in names if _NAME.fullmatch(name)]
    return sorted(found, key=lambda path: (_step(path), path.name), reverse=True)


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int = 2) -> Path:
    """Write a checkpoint, then remove all but the newest.

    Args:
        folder: Where to write; must exist.
        step: Steps taken: the place of the checkpoint among the others.
        state: Tensors, numbers, strings, None, and lists, tuples and dictionaries of them.
        keep: Checkpoints that stay, this one included.

    Returns:
        The path of the checkpoint.

    Raises:
        NotWritable: If the disk is full or the folder not writable; what was there is intact.
        CheckpointError: If the state is not plain; likewise.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for step in (1, 2, 3):
        ...         path = save_checkpoint(Path(folder), step, {"weight": torch.ones(2)}, keep=2)
        ...     kept = [path.name[:14] for path in checkpoints(Path(folder))]
        >>> kept
        ['step-000000003', 'step-000000002']
    """
    contents = _packed(step, state)
    path = folder / f"step-{step:09d}-{_digest(contents)}.pt"
    unfinished = folder / _UNFINISHED
    try:
        with open(unfinished, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _flush_folder(folder)
        others = [old for old in checkpoints(folder) if old != path]
        superseded = [old for old in others if _step(old) == step]
        for old in superseded + [old for old in others if old not in superseded][keep - 1 :]:
            old.unlink()
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        last = next(iter(checkpoints(folder)), None)
        rest = f"{last.name} is intact" if last else "there is no earlier one"
        raise NotWritable(
            f"The checkpoint of step {step} cannot be written to {folder} ({error.strerror}); "
            f"{rest}: make room or fix the folder, and resume."
        ) from error
    return path


def rehearse_checkpoint(state: dict[str, Any]) -> None:
    """Find out, before hours of training, whether a state could be written and read again.

    Args:
        state: What will be handed to ``save_checkpoint``.

    Raises:
        CheckpointError: If it holds more than tensors and plain values.

    Example:
        >>> rehearse_checkpoint({"weight": torch.ones(2), "pair": (1, None)})
    """
    _packed(0, state)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, if it is what was written.

    Args:
        path: The file, under the name that it was given.

    Returns:
        The state that was saved, on the CPU.

    Raises:
        CheckpointError: If the file is truncated, altered, renamed, or holds anything but data.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_checkpoint(Path(folder), 1, {"weight": torch.ones(2)})
        ...     load_checkpoint(path)
        {'weight': tensor([1., 1.])}
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise CheckpointError(
            f"{path} is not named as a checkpoint of `flatmin train`: step-<number>-<digest>.pt."
        )
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}).") from error
    if _digest(contents) != match[2]:
        raise CheckpointError(f"{path} is truncated or altered: its digest is not {match[2]}.")
    state = _unpack(io.BytesIO(contents), str(path))
    written = state.pop(_STEP, None)
    if written not in (None, _step(path)):  # none in files of version 0.1.0
        raise CheckpointError(
            f"{path} was written as step {written}, and is named as another: give it back its name."
        )
    return state


def newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Read the newest checkpoint that is what was written, and warn of newer ones that are not.

    Args:
        folder: Where a run writes.

    Returns:
        Path and state; None where there is no checkpoint at all.

    Raises:
        CheckpointError: If there are checkpoints, and none is sound.

    Example:
        >>> newest_checkpoint(Path("no such folder")) is None
        True
    """
    found = checkpoints(folder)
    for path in found:
        try:
            return path, load_checkpoint(path)
        except CheckpointError as error:
            warnings.warn(f"{error} The one before it is tried.", RuntimeWarning, stacklevel=2)
    if found:
        raise CheckpointError(
            f"None of the {len(found)} checkpoints in {folder} is sound; start again in another "
            "folder."
        )
    return None


def _packed(step: int, state: dict[str, Any]) -> memoryview:
    """The bytes of a file, after reading them once: what could not be read is not worth writing."""
    odd = odd_value(state)
    if odd is not None:
        raise CheckpointError(
            f"The state of step {step} holds {odd}, and a checkpoint holds tensors and plain "
            "values alone (numbers, texts, None, and lists, tuples and dictionaries of them): "
            "convert it."
        )
    buffer = io.BytesIO()
    torch.save({**state, _STEP: step}, buffer)
    _unpack(buffer, f"The state of step {step}")
    return buffer.getbuffer()


def _unpack(file: io.BytesIO, name: str) -> dict[str, Any]:
    """Read a state without running any code that it might bring along, or unfolding without end."""
    file.seek(0)
    try:
        scan_file(file)
        file.seek(0)
        state = torch.load(file, map_location="cpu", weights_only=True)
        scan_values(state, len(file.getbuffer()))
    except Exception as error:  # a stranger's file can fail in any way
        raise CheckpointError(
            f"{name} holds more than tensors and plain values, or is no checkpoint: it is refused."
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{name} is no checkpoint: it holds a {type(state).__name__}.")
    return state


def _step(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def _digest(contents: bytes | memoryview) -> str:
    return hashlib.sha256(contents).hexdigest()[:16]


def _flush_folder(folder: Path) -> None:
    """Put the new name itself on the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
