"""What a SAM step costs beyond its two gradients: the climb and the way back.

Times climb + restore alone, without a model, on the parameter set of WRN-28-10 and on one of many
small tensors, beside pytorch-optimizer's SAM, two loops over parameters in the style of published
code, torch's own operations with nothing around them, and the limit: copies of all parameters,
timed in the same run. All get fresh gradients, which they drop as a training step does. The
contenders take turns, so that a busy machine slows all of them; the medians are reported. Fresh
pages, which the system has to find and to clear, are counted beside it, in a process for each
contender: how dear they are is the machine's mood, how many is not.

The loops are ours, after what the code does: that of github.com/davda54/sam clones the weights and
copies them back ("published loop"); that of github.com/SamsungLabs/ASAM works in the gradients,
keeps the shift in a buffer, and goes back by subtracting it, which gives other bits than there were
("shifting loop").

    python benchmarks/step_cost.py             # writes docs/results/step_cost.json and .png
    python benchmarks/step_cost.py --draw      # draws the figure again from the JSON

On a GPU: `--device cuda`.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flatmin import ASAM, SAM
from flatmin.models import WideResNet
from flatmin.record.provenance import provenance

OUT = Path(__file__).parents[1] / "docs" / "results" / "step_cost"

Named = list[tuple[str, torch.nn.Parameter]]
Action = Callable[[], None]


class Still(torch.optim.Optimizer):
    """A base optimizer that does not move, so that only the wrapper's own work is timed."""

    def __init__(self, params: Any, lr: float = 0.0) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        """Do nothing."""


def wrn_28_10() -> Named:
    with torch.device("meta"):
        model = WideResNet(28, 10)
    return [
        (name, torch.nn.Parameter(torch.randn(p.shape) * 0.05))
        for name, p in model.named_parameters()
    ]


def many_small() -> Named:
    return [(f"{i}.weight", torch.nn.Parameter(torch.randn(64, 64))) for i in range(300)]


SETS: dict[str, Callable[[], Named]] = {"WRN-28-10": wrn_28_10, "many small": many_small}
TURNS = {"many small": 4}  # as many times as many, since they are short


class Ours:
    """A wrapper of ours, whose block has an empty body.

    Such a block counts as a failed one, which the next would have to tell everybody; a step, or
    clearing the gradients, is what makes it forgotten.
    """

    def __init__(self, named: Named, kind: type, **options: Any) -> None:
        self.optimizer = kind(Still(named), **options)

    def __call__(self) -> None:
        """Climb and go back."""
        with self.optimizer.perturbed():
            pass


def ready(action: Action, params: Sequence[torch.nn.Parameter], source: Sequence[Tensor]) -> None:
    """Put fresh gradients there, which nobody else holds, as after a real backward pass."""
    if isinstance(action, Ours):
        action.optimizer.zero_grad()
    for p, grad in zip(params, source, strict=True):
        p.grad = grad.clone()


def nothing() -> None:
    """Stands where a training step has its second gradient."""


def bare(named: Named, rho: float) -> Action:
    """The four operations of SAM on lists of tensors, and no more: no check, no promise."""
    params = [p for _, p in named]
    old = [torch.empty_like(p) for p in params]

    @torch.no_grad()
    def action() -> None:
        grads = [p.grad for p in params]
        norm = torch.stack(torch._foreach_norm(grads)).norm().item()
        torch._foreach_copy_(old, params)
        torch._foreach_add_(params, grads, alpha=rho / norm)
        for p in params:
            p.grad = None
        del grads
        torch._foreach_copy_(params, old)

    return action


def published_loop(named: Named, adaptive: bool, rho: float, between: Action = nothing) -> Action:
    """One parameter at a time, a temporary per operation, weights kept as clones."""
    params = [p for _, p in named]

    @torch.no_grad()
    def action() -> None:
        norms = []
        for p in params:
            assert p.grad is not None
            norms.append(((p.abs() if adaptive else 1.0) * p.grad).norm(p=2))
        factor = rho / (torch.stack(norms).norm(p=2) + 1e-12)
        old = []
        for p in params:
            assert p.grad is not None
            old.append(p.clone())
            p.add_((p.square() if adaptive else 1.0) * p.grad * factor)
            p.grad = None
        between()
        for p, clean in zip(params, old, strict=True):
            p.copy_(clean)

    return action


def shifting_loop(named: Named, adaptive: bool, rho: float, between: Action = nothing) -> Action:
    """One parameter at a time, in the gradients and in one buffer each; back by subtraction."""
    params = [p for _, p in named]
    buffers = [torch.empty_like(p) for p in params]

    @torch.no_grad()
    def action() -> None:
        norms = []
        for p, buffer in zip(params, buffers, strict=True):
            assert p.grad is not None
            if adaptive:
                buffer.copy_(p).abs_().add_(0.01)
                p.grad.mul_(buffer)
            norms.append(p.grad.norm(p=2))
        length = rho / (torch.stack(norms).norm(p=2) + 1e-16)
        for p, buffer in zip(params, buffers, strict=True):
            assert p.grad is not None
            if adaptive:
                p.grad.mul_(buffer)
            buffer.copy_(p.grad).mul_(length)
            p.add_(buffer)
            p.grad = None
        between()
        for p, buffer in zip(params, buffers, strict=True):
            p.sub_(buffer)

    return action


def pytorch_optimizer(
    named: Named, adaptive: bool, rho: float, foreach: bool, between: Action = nothing
) -> Action:
    from pytorch_optimizer import SAM as PeerSAM

    optimizer = PeerSAM(
        [p for _, p in named], Still, rho=rho, adaptive=adaptive, foreach=None, lr=0.0
    )
    for group in optimizer.param_groups:
        group["foreach"] = foreach

    def action() -> None:
        optimizer.first_step(zero_grad=True)
        between()
        optimizer.second_step()

    return action


def contenders(named: Named) -> dict[str, Action]:
    inf = {"p": math.inf, "rho": 1e-3}
    table: dict[str, Action] = {}
    for name, kind in (("SAM", SAM), ("ASAM", ASAM)):
        adaptive = kind is ASAM
        rho = 0.5 if adaptive else 0.05
        table |= {f"{name}": Ours(named, kind), f"{name}, p = ∞": Ours(named, kind, **inf)}
        if named[0][1].is_cpu:
            table |= {
                f"{name}, fused": Ours(named, kind, fused=True),
                f"{name}, p = ∞, fused": Ours(named, kind, **inf, fused=True),
            }
        table |= {
            f"{name}, published loop": published_loop(named, adaptive, rho),
            f"{name}, shifting loop": shifting_loop(named, adaptive, rho),
        }
        if not find_spec("pytorch_optimizer"):
            continue
        table |= {
            f"{name}, pytorch-optimizer": pytorch_optimizer(named, adaptive, rho, False),
            f"{name}, pytorch-optimizer foreach": pytorch_optimizer(named, adaptive, rho, True),
        }
    table["four operations of torch"] = bare(named, 0.05)
    return table


def measure(title: str, repeats: int, device: torch.device, *, pages: bool) -> dict[str, Any]:
    named = [(name, torch.nn.Parameter(p.detach().to(device))) for name, p in SETS[title]()]
    params = [p for _, p in named]
    grads = [torch.randn_like(p) for p in params]
    target = [torch.empty_like(p) for p in params]

    def copy() -> None:
        with torch.no_grad():
            torch._foreach_copy_(target, params)

    table = {"copy": copy, **contenders(named)}
    seconds: dict[str, list[float]] = {name: [] for name in table}
    for turn in range(-2, repeats):  # two turns to warm up
        for name, action in table.items():
            ready(action, params, grads)
            start = now(device)
            action()
            if turn >= 0:
                seconds[name].append(now(device) - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    size = sum(p.numel() * p.element_size() for p in params)
    names = [name for name in table if name != "copy"]
    counted = count_pages(title, names, torch.get_num_threads()) if pages else {}
    return {
        "tensors": len(params),
        "numbers": sum(p.numel() for p in params),
        "bandwidth_gb_per_s": 2 * size / medians["copy"] / 1e9,
        "seconds": medians,
        "fresh_pages": counted,
        "copies": {name: value / medians["copy"] for name, value in medians.items()},
        "ratios": {
            f"{kind}{mode}": medians[f"{kind}{mode}"]
            / min(v for n, v in medians.items() if n.startswith(kind + ",") and is_peer(n))
            for kind in ("SAM", "ASAM")
            for mode in ("", ", fused")
            if f"{kind}{mode}" in medians
        },
    }


def now(device: torch.device) -> float:
    """The time when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def is_peer(name: str) -> bool:
    return "loop" in name or "pytorch-optimizer" in name


def promises(name: str) -> str:
    """A mark for each promise of ours that a contender does not give."""
    return " **" if "shifting" in name else " *" if is_peer(name) else ""


def fresh_pages(title: str, name: str, threads: int) -> int:
    """Pages that one climb and restore makes the system find, once all is warm."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    named = SETS[title]()
    action = contenders(named)[name]
    params = [p for _, p in named]
    source = [torch.randn_like(p) for p in params]
    counts = []
    for _ in range(9):
        ready(action, params, source)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        action()
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return int(statistics.median(counts[3:]))


def count_pages(title: str, names: Sequence[str], threads: int) -> dict[str, int]:
    """The same for all, each in a process of its own: malloc goes by what was freed before."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
        tasks = {name: pool.submit(fresh_pages, title, name, threads) for name in names}
        return {name: task.result() for name, task in tasks.items()}


def draw(record: dict[str, Any], out: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    sets = record["sets"]
    # One above the other, to be read on a phone.
    figure, axes = plt.subplots(
        len(sets), 1, figsize=(6, 0.8 + 4.8 * len(sets)), layout="constrained", squeeze=False
    )
    for axis, (title, numbers) in zip(axes[:, 0], sets.items(), strict=True):
        names = [name for name in numbers["copies"] if name != "copy"][::-1]
        values = [numbers["copies"][name] for name in names]
        colors = [
            "0.65" if is_peer(name) else "0.85" if name.startswith("four") else "#1b7837"
            for name in names
        ]
        axis.barh([name + promises(name) for name in names], values, color=colors)
        for y, (name, value) in enumerate(zip(names, values, strict=True)):
            words = f" {value:.1f}"
            if pages := numbers["fresh_pages"].get(name):
                words += f", {pages:,} page{'s' * (pages > 1)}"
            axis.text(value, y, words, va="center", fontsize=8)
        axis.axvline(2.0, color="k", lw=0.8, ls=":")
        axis.set_xlim(0, max(values) * 1.7)
        axis.set_xlabel("climb + restore, in copies of all parameters")
        axis.set_title(
            f"{title}\n{numbers['tensors']} tensors, {numbers['numbers']:,} numbers", fontsize=10
        )
    figure.suptitle(
        "flatmin (green), others (grey) and bare torch (light),\n"
        "with fresh pages where there are any\n"
        "dotted: the traffic SAM needs, 2 copies\n"
        "* weights do not come back if the second pass raises,\n"
        "** nor to the same bits if it does not\n"
        f"{record['device']}, {record['threads']} threads, torch {record['torch']}",
        fontsize=10,
    )
    figure.savefig(out.with_suffix(".png"), dpi=200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-pages", action="store_true", help="count no fresh pages")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--out", type=Path, default=OUT, help="where to, without .json")
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    out: Path = options.out
    if not options.draw:
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        device = torch.device(options.device)
        # Accelerators have an allocator of their own.
        pages = device.type == "cpu" and not options.no_pages
        origin = provenance({"device": options.device})
        record = {
            **{name: origin[name] for name in ("commit", "device", "date")},
            "machine": platform.processor() or platform.machine(),
            "threads": options.threads,
            "torch": torch.__version__,
            "repeats": options.repeats,
            "sets": {
                title: measure(title, TURNS.get(title, 1) * options.repeats, device, pages=pages)
                for title in options.sets
            },
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".json").write_text(json.dumps(record, indent=1, ensure_ascii=False))
    record = json.loads(out.with_suffix(".json").read_text())
    for title, numbers in record["sets"].items():
        print(f"{title} (copy: {numbers['seconds']['copy'] * 1e3:.2f} ms)")
        for name, copies in numbers["copies"].items():
            pages = numbers["fresh_pages"].get(name, 0)
            print(f"  {name:34s} {copies:6.2f} copies {pages:8d} fresh pages")
        print(
            "  ratios to the faster peer:", {k: round(v, 2) for k, v in numbers["ratios"].items()}
        )
    draw(record, out)


if __name__ == "__main__":
    main()
