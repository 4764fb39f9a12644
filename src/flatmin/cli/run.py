"""``flatmin run``: compute some items, or all of them, and keep what is finished."""

from __future__ import annotations

import argparse
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatmin
from flatmin import cli
from flatmin.data import load_cifar10, load_cifar100
from flatmin.experiments import discover
from flatmin.record.files import require_writable
from flatmin.record.item import Item
from flatmin.record.options import configure, option_names
from flatmin.record.page import count, does_not_fit, publish
from flatmin.record.store import config_dict, forget, read_record, run_item


@dataclass(frozen=True, slots=True)
class Job:
    """An item with the configuration it is to be computed in."""

    item: Item
    config: Any
    mode: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("item", nargs="+", help="items that `flatmin list` shows, or all")
    parser.add_argument("--quick", action="store_true", help="small enough to try out")
    parser.add_argument("--seeds", metavar="N", help="number of seeds")
    parser.add_argument("--device", metavar="D", help="where to compute: cpu, cuda, cuda:1, …")
    parser.add_argument(
        "--data", metavar="DIR", help="folder of CIFAR-10; without it, image items use digits"
    )
    parser.add_argument(
        "--download", action="store_true", help="fetch it into DIR from its site, if it is missing"
    )
    parser.add_argument(
        "--set",
        metavar="name=value",
        nargs="+",
        action="extend",
        default=[],
        help="any other option of the item; a sequence is written 1,5,15",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results"), help="folder of the results (results)"
    )
    parser.add_argument("--force", action="store_true", help="compute finished items again")


def main(arguments: argparse.Namespace) -> int:
    """Check everything first, then compute what is not there yet."""
    out: Path = arguments.out
    jobs = _jobs(arguments)
    given = [getattr(job.config, name, None) for job in jobs for name in ("data", "data100")]
    if arguments.download and not any(given):
        raise ValueError("--download needs --data, the folder to fetch into.")
    require_writable(out)
    todo = [job for job in jobs if arguments.force or not _is_there(job, out)]
    # Before an hour of computing, not after it.
    for option, load in (("data", load_cifar10), ("data100", load_cifar100)):
        for folder in {getattr(job.config, option, None) for job in todo}:
            if folder:
                load(folder, download=arguments.download)
    if arguments.force:
        forget((job.item for job in jobs), out)
    failed = []
    for job in jobs:
        try:
            _compute(job, out, force=arguments.force)
        except KeyboardInterrupt:
            _say(
                f"interrupted in {job.item.name}; what is finished is kept in {out}, and the same "
                "command goes on from there."
            )
            return 130
        except Exception as error:  # one broken item must not cost the others
            if len(jobs) == 1:
                raise
            failed.append(job.item.name)
            sentence = cli.trouble_of_disk(error)
            ours = isinstance(error, ValueError | ImportError) and cli.is_ours(error)
            if not (ours or sentence):
                traceback.print_exc()
            _say(f"{job.item.name} failed: {sentence or error}")
    if failed:
        _say(f"failed: {', '.join(failed)}; the other items are finished.")
    return 1 if failed else 0


def _jobs(arguments: argparse.Namespace) -> list[Job]:
    items = discover()
    for name in arguments.item:
        if name != "all" and name not in items:
            raise ValueError(
                f"there is no item {name!r}; the items are {', '.join(items)}, or all."
            )
    names = items if "all" in arguments.item else dict.fromkeys(arguments.item)
    chosen = [items[name] for name in names]
    mode = "QUICK" if arguments.quick else "FULL"
    bases = {item: getattr(item.load(), mode) for item in chosen}
    texts = _texts(arguments)
    if len(chosen) > 1:
        for name in texts:
            without = [item.name for item in chosen if name not in option_names(bases[item])]
            if len(without) == len(chosen):
                raise ValueError(f"no item has an option {name!r}; `flatmin list` shows the items.")
            if without:
                _say(f"{name} is no option of {', '.join(without)}.")
    jobs = []
    for item, base in bases.items():
        known = option_names(base)
        mine = {name: text for name, text in texts.items() if len(chosen) == 1 or name in known}
        try:
            jobs.append(Job(item, configure(base, mine), mode))
        except ValueError as error:
            raise ValueError(f"{item.name}: {error}") from error
    return jobs


def _texts(arguments: argparse.Namespace) -> dict[str, str]:
    """All options as typed, those of --set among them."""
    texts = {name: getattr(arguments, name) for name in ("seeds", "device", "data")}
    for pair in arguments.set:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise ValueError(f"--set takes name=value, got {pair!r}.")
        texts[name] = text
    return {name: text for name, text in texts.items() if text is not None}


def _is_there(job: Job, out: Path) -> bool:
    """Whether there is a finished result that is not to be computed again."""
    record = read_record(job.item, out)
    if record is None:
        return False
    if record["mode"] == "FULL" and job.mode == "QUICK":
        return True  # never let hours of computing be overwritten by a try
    return bool(
        record["mode"] == job.mode
        and record["config"] == config_dict(job.config)
        and record["provenance"].get("flatmin") == flatmin.__version__
    )


def _compute(job: Job, out: Path, *, force: bool) -> None:
    name = job.item.name
    kept = not force and _is_there(job, out)
    if not kept:
        _say(f"{name}: {job.item.title}")
        run_item(job.item, job.config, job.mode, out)
    record = read_record(job.item, out)
    if record is None:
        raise RuntimeError(f"{out / name}.json has vanished or changed while it was in use.")
    try:
        verdicts = publish(job.item, record, out)
    except Exception as error:
        if not kept or isinstance(error, OSError):
            raise
        raise ValueError(does_not_fit(name, error)) from error
    seconds = record["provenance"]["seconds"]
    note = f"{seconds:.0f} s" if not kept else f"kept from before, {record['mode']}"
    if kept and record["mode"] != job.mode:
        note += "; QUICK replaces it only with --force"
    print(f"{name}: {count(verdicts)} ({note}), {out / name}.md", flush=True)


def _say(sentence: str) -> None:
    print(f"flatmin: {sentence}", file=sys.stderr, flush=True)
