"""Kill a comparison at random moments, over and over, and hold what comes out to the plain one.

Arguments: the task's file, the number of kills. Each life is a fork of this process, which has
torch loaded already: so a life begins at once, and is killed in its training.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import matplotlib.figure
import scipy.special  # what a life would load, so that it is killed in its work
import torch

from flatmin.cli import main

OPTIONS = ["--epochs", "3", "--seeds", "2", "--trials", "4", "--arms", "sam"]
LOADED = matplotlib.figure, scipy.special


def record(folder: Path) -> dict[str, object]:
    """What was found, but for clocks and places."""
    found = json.loads((folder / "compare.json").read_text())
    return {key: value for key, value in found.items() if key not in ("seconds", "provenance")}


def life(task: Path, out: Path) -> int:
    """Begin the command, or go on with it, in a process of its own; give its number."""
    number = os.fork()
    if number == 0:
        os._exit(main(["compare", str(task), *OPTIONS, "--workers", "1", "--out", str(out)]))
    return number


def files(out: Path) -> set[tuple[str, int]]:
    """Checkpoints and finished runs, and since when they are there."""
    found: set[tuple[str, int]] = set()
    # A run that ends meanwhile takes the folder of its checkpoints with it.
    for pattern in ("runs/*.json", "runs/*/step-*.pt"):
        with suppress(FileNotFoundError):
            found |= {(str(path), path.stat().st_mtime_ns) for path in out.glob(pattern)}
    return found


def ended(number: int, out: Path, seconds: float) -> bool:
    """Let a process get to its work, and some way into it, and kill it.

    A life that is killed before its first epoch is none, and on a busy machine there would be no
    others.

    Returns:
        Whether it had ended before.
    """
    before, end = files(out), math.inf
    while time.monotonic() < end:
        gone, status = os.waitpid(number, os.WNOHANG)
        if gone:
            assert status == 0, f"the comparison ended with status {status}"
            return True
        if end == math.inf and files(out) != before:
            end = time.monotonic() + seconds
        time.sleep(0.005)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return False


def kill_often(task: Path, kills: int) -> None:
    """Kill until it was often enough, in as many comparisons as that takes."""
    begin, out = time.monotonic(), task.parent / "plain"
    assert ended(life(task, out), out, math.inf)
    most = min(2.0, (time.monotonic() - begin) / 8)
    plain, moments = record(out), random.Random(0)
    killed, number, ends = 0, 0, []
    while killed < kills:
        out, number, before = task.parent / f"killed-{number}", number + 1, killed
        while not ended(life(task, out), out, moments.uniform(0.0, most)):
            killed += 1
        assert record(out) == plain, "a comparison that was killed found something else"
        ends.append(killed - before)
    print(f"{killed} kills in {len(ends)} comparisons ({ends} each), all the same")


if __name__ == "__main__":
    torch.set_num_threads(1)
    kill_often(Path(sys.argv[1]), int(sys.argv[2]))
