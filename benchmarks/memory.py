"""What a SAM step holds in memory beyond the gradients.

Runs one step on given gradients, without a model, for SAM and ASAM, pytorch-optimizer's, and a
loop over parameters in the style of the published code, each in a process of its own. Two
instruments: every allocation and release of torch's allocator, as torch.profiler records them, and
the high-water mark of the process's resident memory, which sees what does not come from torch too.
Both are given beyond what the gradients need that any optimizer has to hold, in sizes of all
parameters. The base optimizer does not move here and keeps nothing, so that all of it is the
wrapper's. What a wrapper keeps from step to step counts for both, and is given by itself.

    python benchmarks/memory.py             # writes docs/results/memory.json and .png
    python benchmarks/memory.py --draw      # draws the figure again from the JSON
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import multiprocessing
import os
import platform
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from step_cost import (
    Action,
    Named,
    Still,
    is_peer,
    many_small,
    nothing,
    published_loop,
    pytorch_optimizer,
    wrn_28_10,
)
from torch.profiler import ProfilerActivity, profile

from flatmin import ASAM, SAM
from flatmin.record.provenance import provenance

OUT = Path(__file__).parents[1] / "docs" / "results" / "memory"

SETS: dict[str, Callable[[], Named]] = {
    "WRN-28-10": wrn_28_10,
    "many small": many_small,
    "toy": lambda: [("weight", torch.nn.Parameter(torch.randn(1 << 16)))],
}


# Without it glibc keeps more and more of what is freed, and resident memory tells about glibc.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 14)}


def contenders() -> list[str]:
    kinds = ("SAM", "ASAM")
    modes = ("", ", fused", ", p = ∞", ", p = ∞, fused")
    peers = (", published loop", ", pytorch-optimizer", ", pytorch-optimizer foreach")
    return ["gradients alone", *(kind + mode for kind in kinds for mode in (*modes, *peers))]


def a_step(name: str, named: Named) -> tuple[Action, Callable[[], int]]:
    """A whole step of a contender, with two gradients made anew, and the bytes it keeps after one.

    It leaves no gradient behind.
    """
    workspaces: list[Any] = []
    source = [torch.randn_like(p) for _, p in named]

    def gradients() -> None:
        for (_, p), grad in zip(named, source, strict=True):
            p.grad = grad.clone()

    kind, *mode = name.split(", ")
    adaptive = kind == "ASAM"
    if kind == "gradients alone":
        second = nothing
    elif "published loop" in mode:
        second = published_loop(named, adaptive, 0.05, gradients)
    elif is_peer(name):
        foreach = mode[0].endswith("foreach")
        second = pytorch_optimizer(named, adaptive, 0.05, foreach, gradients)
    else:
        order = {"p": math.inf, "rho": 1e-3} if "p = ∞" in mode else {}
        optimizer = (ASAM if adaptive else SAM)(Still(named), **order, fused="fused" in mode)

        workspaces.append(optimizer._workspace)

        def second() -> None:
            with optimizer.perturbed():
                gradients()
            optimizer.step()

    def action() -> None:
        gradients()
        second()
        for _, p in named:
            p.grad = None

    return action, lambda: sum(workspace.nbytes for workspace in workspaces)


def allocations(action: Action) -> list[int]:
    """Bytes that torch's allocator has given out since the start, after each change."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        action()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        record.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [e for e in events if e.get("name") == "[memory]"]
    changes.sort(key=lambda e: e["args"]["Ev Idx"])
    return list(accumulate((e["args"]["Bytes"] for e in changes), initial=0))


def resident(action: Action) -> int | None:
    """By how much resident memory rises during an action; None where the system does not tell."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or what lies free in the heap would be used unseen
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    except (OSError, AttributeError, TypeError):
        return None
    before = _status("VmRSS")
    action()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def measure(name: str, sets: Iterable[str], threads: int) -> dict[str, dict[str, Any]]:
    """Bytes at the peak, bytes left afterwards, and the rise of resident memory."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    result: dict[str, dict[str, Any]] = {}
    for title in sets:
        action, kept = a_step(name, SETS[title]())
        action()  # compiles, and makes what is made once
        rise = resident(action)
        curve = allocations(action)
        result[title] = {
            "peak": max(curve) + kept(),
            "kept": curve[-1] + kept(),
            "resident": None if rise is None else rise + kept(),
        }
    return result


def collect(sets: list[str], threads: int) -> dict[str, Any]:
    os.environ.update(_MALLOC)
    names = contenders()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
        tasks = [pool.submit(measure, name, sets, threads) for name in names]
        rows = {name: task.result() for name, task in zip(names, tasks, strict=True)}
    return {title: _beyond(title, {n: row[title] for n, row in rows.items()}) for title in sets}


def _beyond(title: str, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The same beyond the gradients, in sizes of all parameters."""
    named = SETS[title]()
    size = sum(p.numel() * p.element_size() for _, p in named)
    floor = rows["gradients alone"]
    rows = {name: row for name, row in rows.items() if row is not floor}
    return {
        "tensors": len(named),
        "bytes": size,
        "gradients_alone": floor,
        "measured": rows,
        "peak": {n: (row["peak"] - floor["peak"]) / size for n, row in rows.items()},
        "scratch_bytes": {n: row["peak"] - floor["peak"] - size for n, row in rows.items()},
        "kept_bytes": {n: row["kept"] for n, row in rows.items()},
        "resident": {
            n: None if row["resident"] is None else (row["resident"] - floor["resident"]) / size
            for n, row in rows.items()
        },
    }


def draw(record: dict[str, Any], out: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    sets = record["sets"]
    figure, axes = plt.subplots(
        1, len(sets), figsize=(6 * len(sets), 5.2), layout="constrained", squeeze=False
    )
    for axis, (title, numbers) in zip(axes[0], sets.items(), strict=True):
        names = list(numbers["peak"])[::-1]
        values = [numbers["peak"][name] for name in names]
        axis.barh(names, values, color=["0.65" if is_peer(n) else "#1b7837" for n in names])
        seen = [(numbers["resident"][name], y) for y, name in enumerate(names)]
        marks = [mark for mark in seen if mark[0] is not None]
        if marks:
            axis.scatter(*zip(*marks, strict=True), color="k", marker="|", s=90, zorder=3)
        top = max([*values, *(x for x, _ in marks)])
        for y, value in enumerate(values):
            axis.text(top * 1.08, y, f"{value:.2f}", va="center", fontsize=9)
        axis.axvline(1.0, color="k", lw=0.8, ls=":")
        axis.set_xlim(0, top * 1.25)
        axis.set_xlabel("peak beyond the gradients, in parameters")
        axis.set_title(f"{title}: {numbers['tensors']} tensors, {numbers['bytes'] / 1e6:.0f} MB")
    figure.suptitle(
        "flatmin (green) and others (grey); ticks: resident memory; dotted: one copy of the weights"
        f"\n{record['machine']}, {record['threads']} threads, torch {record['torch']}",
        fontsize=10,
    )
    figure.savefig(out.with_suffix(".png"), dpi=200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["WRN-28-10", "many small"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    path = options.out.with_suffix(".json")
    if not options.draw:
        origin = provenance({})
        record = {
            **{name: origin[name] for name in ("commit", "device", "date")},
            "machine": platform.processor() or platform.machine(),
            "threads": options.threads,
            "torch": torch.__version__,
            "sets": collect(options.sets, options.threads),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False))
    record = json.loads(path.read_text())
    for title, numbers in record["sets"].items():
        print(f"{title} ({numbers['bytes'] / 1e6:.1f} MB)")
        for name, peak in numbers["peak"].items():
            seen = numbers["resident"][name]
            print(
                f"  {name:34s} {peak:6.3f}   scratch {numbers['scratch_bytes'][name] / 1e6:8.2f} MB"
                f"   kept {numbers['kept_bytes'][name]} B"
                + ("" if seen is None else f"   resident {seen:6.3f}")
            )
    draw(record, options.out)


if __name__ == "__main__":
    main()
