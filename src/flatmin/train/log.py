"""What a run tells while it runs: JSON lines, TensorBoard, a progress bar."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from flatmin.train.history import Epoch


def read_log(path: Path | str) -> Iterator[dict[str, Any]]:
    """Read the records of a log.

    Args:
        path: The file ``log.jsonl`` of a run; a last line that is not complete is left out.

    Yields:
        One dictionary a line; ``event`` says what it is: ``start``, ``resume``, ``step``,
        ``epoch``, ``stop`` or ``end``.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w+") as file:
        ...     print('{"event": "step", "step": 20}', file=file, flush=True)
        ...     print('{"event": "st', file=file, end="", flush=True)
        ...     list(read_log(file.name))
        [{'event': 'step', 'step': 20}]
    """
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


class Log:
    """The records of a run, written by one process.

    Args:
        folder: Where ``log.jsonl`` is; None to write nothing.
        tensorboard: Whether to write for TensorBoard too, in a folder of that name.
        progress: Name of the progress bar on stderr; None for no bar. There is none without a
            terminal.

    Raises:
        ImportError: If TensorBoard is asked for and not installed.
        ValueError: If TensorBoard is asked for without a folder, or another process writes here.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Log(Path(folder))
        ...     log.write("start", seed=0)
        ...     log.close()
        ...     list(read_log(Path(folder, "log.jsonl")))
        [{'event': 'start', 'seed': 0}]
    """

    def __init__(
        self, folder: Path | None, *, tensorboard: bool = False, progress: str | None = None
    ) -> None:
        self._board_writer = _board_writer(folder) if tensorboard else None
        self._board: Any = None
        self._file = (folder / "log.jsonl").open("a", encoding="utf-8") if folder else None
        if self._file:
            _claim(self._file)
        self._progress = progress
        self._bar: Any = None

    def rewind(self, position: int) -> None:
        """Drop what was written after a checkpoint: the steps that will be taken again."""
        if self._file and position < self.flush():
            self._file.truncate(position)

    def flush(self) -> int:
        """Put everything on the disk, and give the length of the log in bytes."""
        if not self._file:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def write(self, event: str, **values: Any) -> None:
        """Add one record."""
        if self._file:
            record = {"event": event, **{key: _plain(value) for key, value in values.items()}}
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def begin(self, step: int, done: int, whole: int) -> None:
        """Show the bar, counting images; start TensorBoard, without what follows the step."""
        if self._board_writer:
            self._board = self._board_writer(purge_step=step + 1)
        self._bar = _bar(self._progress, done, whole)

    def count(self, images: int) -> None:
        """Move the bar on."""
        if self._bar is not None:
            self._bar.update(images)

    def step(self, step: int, *, loss: float, lr: float) -> None:
        """Record the running loss of the epoch."""
        self.write("step", step=step, loss=loss, lr=lr)
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        if self._board:
            self._board.add_scalar("step/loss", loss, step)
            self._board.add_scalar("step/lr", lr, step)

    def epoch(self, record: Epoch) -> None:
        """Record an epoch."""
        values = dataclasses.asdict(record)
        self.write("epoch", **values)
        for name, value in values.items():
            if self._board and value is not None and name not in ("epoch", "step"):
                self._board.add_scalar(f"epoch/{name}", value, record.step)

    def close(self) -> None:
        """Close everything that is open."""
        for thing in (self._bar, self._board, self._file):
            if thing is not None:
                thing.close()


def _claim(file: TextIO) -> None:
    """Lock the log for as long as this process lives, so that no two runs share a folder."""
    try:
        import fcntl
    except ImportError:  # no such lock on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ValueError(
            f"Another process is training in {Path(file.name).parent}; wait for its end, or name "
            "another folder."
        ) from error
    except OSError:
        return  # a file system without locks


def _plain(value: Any) -> Any:
    """JSON has no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _board_writer(folder: Path | None) -> Any:
    if folder is None:
        raise ValueError("TensorBoard needs a place to write; give out.")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            'TensorBoard is not installed: pip install "flatmin[integrations]".'
        ) from error
    return partial(SummaryWriter, str(folder / "tensorboard"))


def _bar(name: str | None, done: int, whole: int) -> Any:
    if name is None or not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None  # a bar is a courtesy: the log says the same
    return tqdm(
        total=whole, initial=done, desc=name, unit="img", unit_scale=True, leave=False, miniters=1
    )
