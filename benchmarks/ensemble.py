"""Networks trained per second: an ensemble against one network after another.

Trains the report's toy network (370 parameters, batch 32, Adam and ASAM) in ensembles of 1 to 1,000
members, and alone by the plain loop with ``torch.optim.Adam`` and ``flatmin.ASAM`` (in a single
thread, which is its fastest). All take turns in one process, so that a busy machine slows all of
them; the medians are reported.

    python benchmarks/ensemble.py             # writes docs/results/ensemble.json and .png
    python benchmarks/ensemble.py --draw      # draws the figure again from the JSON
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from flatmin import ASAM, Ball, Elementwise
from flatmin.data import figure8
from flatmin.ensemble import Ensemble, stack_networks
from flatmin.models import ReportMLP
from flatmin.record.provenance import provenance

OUT = Path(__file__).parents[1] / "docs" / "results" / "ensemble"
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
BATCH, STEPS = 32, 62

Work = Callable[[], object]


def plain_loop() -> Work:
    """Sixty-two steps of one network, as anybody would write them."""
    x, y = figure8(BATCH * STEPS, 15.0)
    net = ReportMLP()
    optimizer = ASAM(torch.optim.Adam(net.named_parameters(), lr=1e-3), rho=0.5)

    def work() -> None:
        order = torch.randperm(len(x))
        for batch in order.split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(net(x[batch]), y[batch]).backward()
            with optimizer.perturbed():
                F.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()

    return work


def ensemble(members: int) -> Work:
    """The same steps for every member of an ensemble."""
    x, y = figure8(BATCH * STEPS, torch.full((members,), 15.0))
    nets = Ensemble(
        ReportMLP(),
        stack_networks([ReportMLP() for _ in range(members)]),
        [Ball(0.5, scale=Elementwise(0.01, biases=False))] * members,
        partial(torch.optim.Adam, lr=1e-3, fused=True),
    )

    def work() -> None:
        order = torch.stack([torch.randperm(BATCH * STEPS) for _ in range(members)])
        nets.train_epoch(x, y, order, BATCH)

    return work


def measure(repeats: int, warmup: int, threads: int) -> dict[str, Any]:
    table = {0: plain_loop(), **{members: ensemble(members) for members in SIZES}}
    seconds: dict[int, list[float]] = {members: [] for members in table}
    for turn in range(-warmup, repeats):  # an ensemble is recorded after some hundred steps
        for members, work in table.items():
            torch.set_num_threads(threads if members else 1)  # one network is fastest with one
            start = time.perf_counter()
            work()
            if turn >= 0:
                seconds[members].append((time.perf_counter() - start) / STEPS)
    step = {members: statistics.median(values) for members, values in seconds.items()}
    plain = 1 / step[0]
    per_second = [members / step[members] for members in SIZES]
    return {
        "plain_networks_x_steps_per_s": plain,
        "members": list(SIZES),
        "networks_x_steps_per_s": per_second,
        "times_plain": [value / plain for value in per_second],
        "step_ms": [step[members] * 1e3 for members in SIZES],
        # A step of m members takes about a + b m: what it costs to arrange it, and arithmetic.
        "arranging_ms": step[1] * 1e3,
        "arithmetic_us_per_network": step[SIZES[-1]] / SIZES[-1] * 1e6,
    }


def draw(record: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    members, plain = record["members"], record["plain_networks_x_steps_per_s"]
    a, b = record["arranging_ms"] * 1e-3, record["arithmetic_us_per_network"] * 1e-6
    figure, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
    axis.loglog(members, record["networks_x_steps_per_s"], "o-", color="#1b7837", label="ensemble")
    axis.axhline(plain, color="0.4", label="one network after another")
    axis.axhline(50 * plain, color="0.4", ls=":", label="50 times that")
    axis.plot(
        members,
        [m / max(a, b * m) for m in members],
        color="0.7",
        ls="--",
        zorder=0,
        label=f"limits: {a * 1e3:.1f} ms to arrange a step, {b * 1e6:.0f} µs per network in it",
    )
    for m, value, ratio in zip(
        members, record["networks_x_steps_per_s"], record["times_plain"], strict=True
    ):
        axis.annotate(
            f"{ratio:.2g}×" if ratio < 10 else f"{ratio:.0f}×",
            (m, value),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axis.margins(y=0.12)  # room for the last number
    axis.set_xlabel("members trained together")
    axis.set_ylabel("networks × steps per second")
    axis.set_title(
        f"Adam + ASAM, 370 parameters, batch {BATCH}\n"
        f"{record['machine']}, {record['threads']} threads, torch {record['torch']}",
        fontsize=10,
    )
    axis.legend(loc="lower right", bbox_to_anchor=(1, 0.1), fontsize=9)
    figure.savefig(OUT.with_suffix(".png"), dpi=200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--warmup", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    if not options.draw:
        torch.manual_seed(0)
        origin = provenance({})
        record = {
            **{name: origin[name] for name in ("commit", "device", "date")},
            "machine": platform.processor() or platform.machine(),
            "threads": options.threads,
            "torch": torch.__version__,
            "repeats": options.repeats,
            **measure(options.repeats, options.warmup, options.threads),
        }
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.with_suffix(".json").write_text(json.dumps(record, indent=1))
    record = json.loads(OUT.with_suffix(".json").read_text())
    print(f"one network after another: {record['plain_networks_x_steps_per_s']:.0f} steps per s")
    for m, value, ratio in zip(
        record["members"], record["networks_x_steps_per_s"], record["times_plain"], strict=True
    ):
        print(f"{m:5d} together: {value:8.0f} networks x steps per s, {ratio:6.1f} times")
    draw(record)


if __name__ == "__main__":
    main()
