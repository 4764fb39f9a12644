"""Why training stops before its end, and the signals that ask for it."""

from __future__ import annotations

import errno
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import torch

from flatmin.train.checkpoint import NotWritable
from flatmin.train.config import TrainConfig
from flatmin.train.log import Log

# A disk without room, over its quota, or read-only: whoever wrote there.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM arrived; the step was finished and the state saved.

    Attributes:
        code: Exit code by the custom of shells: 130 for Ctrl-C, 143 for SIGTERM.
        process: Number of the process that was asked, which may have been a worker.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, code)
        self.code, self.process = code, os.getpid()

    def __str__(self) -> str:
        return str(self.args[0])


class Diverged(RuntimeError):
    """The loss or a weight is not finite."""


class OutOfMemory(RuntimeError):
    """The device has not enough memory."""


class Stop:
    """Whether a signal has asked to stop, and which."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; a second one does not wait for the step to end."""
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    def interruption(self, step: int) -> Interrupted:
        """What to raise once the step is taken; the signal may have met another process."""
        number = signal.Signals(self.signal or signal.SIGTERM)
        return Interrupted(f"Stopped by {number.name} after step {step}", 128 + number)


@contextmanager
def listening() -> Iterator[Stop]:
    """Listen to Ctrl-C and SIGTERM, in the main thread; other threads cannot."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def told(log: Log, config: TrainConfig, last: Callable[[], str]) -> Iterator[None]:
    """Say in one sentence what stopped the training and where the last checkpoint is."""
    try:
        yield
    except Interrupted as stop:
        sentence = f"{stop}; {last()}."
        _note(log, sentence)
        # Replicas that outlive the process group would hang when they are freed.
        traceback.clear_frames(stop.__traceback__)
        raise Interrupted(sentence, stop.code) from None
    except Exception as error:
        sentence = str(error)
        kind: type[RuntimeError] | None = None
        if isinstance(error, Diverged):
            sentence, kind = f"{error}; {last()}.", Diverged
        elif isinstance(error, OSError) and error.errno in _FULL:
            kind = NotWritable
            sentence = (
                f"{error.filename or 'A file'} cannot be written ({error.strerror}); make room, "
                f"and resume; {last()}."
            )
        elif _lacks_memory(error):
            kind = OutOfMemory
            sentence = (
                f"The device has not enough memory for {config.model} with batch_size "
                f"{config.batch_size} in pieces of {-(-config.batch_size // config.accumulation)}; "
                f"raise accumulation, which makes smaller pieces, or lower batch_size; {last()}."
            )
        _note(log, sentence)
        if kind is None:
            raise
        raise kind(sentence) from error


def _note(log: Log, sentence: str) -> None:
    # Where the log is what failed, the reason still has to come through.
    with suppress(NotWritable):
        log.write("stop", reason=sentence)


def _lacks_memory(error: Exception) -> bool:
    words = ("can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
