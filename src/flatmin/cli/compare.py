"""``flatmin compare``: does sharpness awareness help a model of yours?"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from flatmin.compare.arms import ARMS, COSTS, USUAL
from flatmin.compare.comparison import Comparison, carried_out, checked, crew_of
from flatmin.compare.executor import Lister, NotYet, WorkerLost
from flatmin.compare.job import Job
from flatmin.compare.loading import load_task
from flatmin.compare.page import text_table
from flatmin.compare.plan import Asked
from flatmin.compare.work import work
from flatmin.record.files import read_json, write_atomically
from flatmin.train import Interrupted

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add = parser.add_argument
    add("task", type=Path, metavar="FILE", help="defines model() and data(), or run()")
    add("--seeds", type=int, default=5, metavar="N", help="starts that are counted (5)")
    add("--epochs", type=int, metavar="N", help="length of the base")
    add("--budget", type=_seconds, metavar="TIME", help="of the whole, such as 30m; or --epochs")
    known = ", ".join([*list(ARMS)[1:], *COSTS])
    add(
        "--arms",
        nargs="+",
        default=list(USUAL),
        metavar="NAME",
        help=f"{known}, and those of the file ({' '.join(USUAL)})",
    )
    add("--trials", type=int, default=6, metavar="N", help="of the search, for each arm (6)")
    add("--worth", type=float, metavar="X", help="least difference that matters (0.5 points)")
    add("--out", type=Path, metavar="DIR", help="folder of the result (results/FILE)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, …")
    add("--workers", type=int, metavar="N", help="processes (one for each core or GPU)")
    add("--jobs", action="store_true", help="print a command for each run that can be made now")
    add("--run", metavar="KEY", help="make one of these runs")


def main(arguments: argparse.Namespace) -> int:
    """Compare, or name the runs, or make one."""
    out = arguments.out or Path("results") / arguments.task.stem
    if arguments.run is not None:
        return _one(arguments.task, out, arguments.run)
    asked = checked(
        seeds=arguments.seeds,
        epochs=arguments.epochs,
        budget=arguments.budget,
        arms=tuple(arguments.arms),
        trials=arguments.trials,
        worth=arguments.worth,
        device=arguments.device,
        workers=arguments.workers,
        executor=None,
    )
    if arguments.jobs:
        return _jobs(arguments.task, asked, out)
    try:
        with crew_of(asked, None) as crew:
            found = carried_out(arguments.task, asked, out, crew)
    except KeyboardInterrupt as stop:
        _say(f"interrupted; what is finished is kept in {out}, and the same command goes on.")
        return stop.code if isinstance(stop, Interrupted) else 130
    except WorkerLost as error:
        _say(str(error))
        return 1
    _show(found)
    return 0


def _show(found: Comparison) -> None:
    _tell_of_before(found)
    print(f"{found.answer}\n\n{text_table(found.record)}\n\n{found.folder / 'compare.html'}")


def _tell_of_before(found: Comparison) -> None:
    if found.before:
        _say(
            f"{found.folder / 'compare.json'} held another task or setting and is now "
            f"{found.before}."
        )


def _jobs(task: Path, asked: Asked, out: Path) -> int:
    try:
        found = carried_out(task, asked, out, Lister())
    except NotYet as missing:
        for job in missing.jobs:
            write_atomically(_spec(out, job.key), job.written())
            words = ["flatmin", "compare", str(task), "--out", str(out), "--run", job.key]
            print(shlex.join(words))
        return 0
    _tell_of_before(found)
    _say(f"nothing is left to run; the answer is in {found.folder / 'compare.html'}.")
    return 0


def _one(task: Path, out: Path, key: str) -> int:
    if not re.fullmatch("[0-9a-f]+", key) or (text := read_json(_spec(out, key))) is None:
        raise ValueError(f"{out} knows no run {key!r}; give a command that --jobs has printed.")
    # The folder may lie elsewhere on this machine.
    folder = str(out.resolve() / "runs")
    numbers = work(replace(Job.read(text), task=str(load_task(task).path), folder=folder))
    if "refused" in numbers:
        raise ValueError(numbers["refused"])
    return 0


def _spec(out: Path, key: str) -> Path:
    return out / "runs" / f"{key}.job"


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be a time such as 90s, 30m or 2h, got {text!r}")
    return float(match[1]) * _UNITS[match[2]]


def _say(sentence: str) -> None:
    print(f"flatmin: {sentence}", file=sys.stderr, flush=True)
