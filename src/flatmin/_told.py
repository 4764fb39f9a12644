"""Progress where there is no terminal: a line now and then."""

from __future__ import annotations

import sys
import time
import weakref
from typing import Any

PAUSE = 30.0  # seconds between lines, whoever writes them

_begun: list[weakref.ref[Told]] = []  # what is given up without a word is forgotten
_last = 0.0


class Told:
    """Takes the place of a bar of tqdm: says on stderr how far everything open is.

    Nothing is said of what takes less than half a minute. Of several that are open inside each
    other one line tells all, with the time left of the outermost.

    Args:
        total: What there is to do.
        description: What it is.
        done: What was done before.

    Example:
        >>> outer, inner = Told(4, "runs", 1), Told(50, "epochs")
        >>> outer.update(1), inner.update(10)
        (None, None)
        >>> line(40.0)
        'runs 2 of 4, epochs 10 of 50; 40 s gone, about 80 s left'
        >>> inner.close(), outer.close()
        (None, None)
    """

    def __init__(self, total: float, description: str, done: float = 0) -> None:
        global _last
        self.total, self.description, self.done = total, description, done
        self.begin, self.first = time.monotonic(), done
        if not _open():
            _last = self.begin
        _begun.append(weakref.ref(self))

    def update(self, more: float = 1) -> None:
        """Go on; say so, if nothing was said for a while."""
        global _last
        self.done += more
        now = time.monotonic()
        if now - _last >= PAUSE:
            _last = now
            print(f"flatmin: {line(now - _open()[0].begin)}", file=sys.stderr, flush=True)

    def set_postfix(self, **_: Any) -> None:
        """A bar shows more than a line has room for."""

    def close(self) -> None:
        """Done, or given up."""
        _begun[:] = [weakref.ref(each) for each in _open() if each is not self]


def _open() -> list[Told]:
    """What is open, the outermost first."""
    return [each for ref in _begun if (each := ref()) is not None]


def line(seconds: float) -> str:
    """How far all that is open is, after so many seconds of the outermost."""
    parts = ", ".join(f"{each.description} {each.done:.4g} of {each.total:.4g}" for each in _open())
    outer = _open()[0]
    made = outer.done - outer.first
    if not made:
        return f"{parts}; {_time(seconds)} gone"
    left = seconds * (outer.total - outer.done) / made
    return f"{parts}; {_time(seconds)} gone, about {_time(left)} left"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
