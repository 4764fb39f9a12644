"""What a run tells while it runs: JSON lines, TensorBoard, a progress bar."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flatmin._told import Told
from flatmin.train._lines import Lines, Mark
from flatmin.train.history import Epoch


def read_log(path: Path | str) -> Iterator[dict[str, Any]]:
    """Read the records of a log.

    Args:
        path: The file ``log.jsonl`` of a run; a last line that is not complete is left out. Any
            other line that is no record is left out with a warning.

    Yields:
        One dictionary a line; ``event`` says what it is: ``start``, ``resume``, ``step``,
        ``watch``, ``epoch`` or ``stop``.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w+") as file:
        ...     print('{"event": "step", "step": 20}', file=file, flush=True)
        ...     print('{"event": "st', file=file, end="", flush=True)
        ...     list(read_log(file.name))
        [{'event': 'step', 'step': 20}]
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                continue
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict):
                yield record
            else:
                warnings.warn(
                    f"Line {number} of {path} is no record: it is left out.",
                    RuntimeWarning,
                    stacklevel=2,
                )


class Log:
    """The records of a run, written by one process.

    Nothing is written before ``open``, so a run that is refused leaves no trace.

    Args:
        folder: Where ``log.jsonl`` is; None to write nothing.
        tensorboard: Whether to write for TensorBoard too, in a folder of that name.
        progress: Name of the progress bar on stderr; None for no bar. Without a terminal it is a
            line now and then.

    Raises:
        ImportError: If TensorBoard is asked for and not installed.
        ValueError: If TensorBoard is asked for without a folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Log(Path(folder))
        ...     _ = log.open()
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
        self._folder = folder
        self._lines: Lines | None = None
        self._progress = progress
        self._bar: Any = None

    def open(self, mark: dict[str, Any] | None = None) -> bool:
        """Begin to write, behind what a checkpoint marked: steps after it are taken again.

        Args:
            mark: What ``flush`` gave; None to begin. A log that is there already is set aside.

        Returns:
            Whether the records before the mark are still there.

        Raises:
            NotWritable: If the log cannot be written.
            ValueError: If another process writes here.
        """
        if self._folder is None:
            return True
        self._lines = Lines(self._folder / "log.jsonl")
        return self._lines.begin(Mark(**mark) if mark is not None else None)

    def flush(self) -> dict[str, Any] | None:
        """Put everything on the disk, and mark the place."""
        return dataclasses.asdict(self._lines.mark()) if self._lines else None

    def write(self, event: str, **values: Any) -> None:
        """Add one record."""
        if self._lines:
            record = {"event": event, **{key: _plain(value) for key, value in values.items()}}
            self._lines.add(json.dumps(record))

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

    def watch(self, step: int, found: Mapping[str, float | None]) -> None:
        """Record what a watch has found after a step."""
        self.write("watch", step=step, **found)
        for name, value in found.items():
            if self._board and value is not None:
                self._board.add_scalar(f"watch/{name}", value, step)

    def epoch(self, record: Epoch) -> None:
        """Record an epoch."""
        values = dataclasses.asdict(record)
        self.write("epoch", **values)
        for name, value in values.items():
            if self._board and value is not None and name not in ("epoch", "step"):
                self._board.add_scalar(f"epoch/{name}", value, record.step)

    def close(self) -> None:
        """Close everything that is open."""
        for thing in (self._bar, self._board, self._lines):
            if thing is not None:
                thing.close()


def _plain(value: Any) -> Any:
    """JSON has no infinity: a measurement becomes null, a setting its text."""
    if isinstance(value, Mapping):
        return {key: _setting(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _setting(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


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
    if name is None:
        return None
    if not sys.stderr.isatty():
        return Told(whole, name, done)
    try:
        from tqdm import tqdm
    except ImportError:
        return None  # a bar is a courtesy: the log says the same
    return tqdm(
        total=whole, initial=done, desc=name, unit="img", unit_scale=True, leave=False, miniters=1
    )
