"""What the variants of SAM cost beyond their gradients, beside SAM, in time and in memory.

One whole step of each on given gradients, without a model, on the parameter set of WRN-28-10: what
happens before the second gradient (the climb), and after it (the way back, what is made of both
gradients, what is remembered). The base does not move. All take turns, so that a busy machine slows
all of them; the medians are reported, and the largest allocation beyond that of the gradients, with
what is kept in the workspace.

    python benchmarks/family.py             # writes docs/results/family.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from memory import allocations
from step_cost import Named, Still, many_small, wrn_28_10

from flatmin import ASAM, GSAM, MSAM, SAM, SSAM, WSAM, AsyncSAM, FriendlySAM
from flatmin.record.provenance import provenance

OUT = Path(__file__).parents[1] / "docs" / "results" / "family"

KINDS: dict[str, Any] = {
    "SAM": SAM,
    "ASAM": ASAM,
    "GSAM": GSAM,
    "FriendlySAM": FriendlySAM,
    "WSAM": WSAM,
    "coupled WSAM": partial(WSAM, decoupled=False),
    "SSAM": SSAM,
    "MSAM": MSAM,
    "AsyncSAM": AsyncSAM,
}


class Step:
    """One optimizer on one set of parameters."""

    def __init__(self, kind: Any, named: Named, source: list[torch.Tensor]) -> None:
        base = Still(named)
        for group in base.param_groups:  # of a base with momentum, which does not move either
            group["momentum"] = 0.9
        for (_, p), t in zip(named, source, strict=True):
            base.state[p]["momentum_buffer"] = t
        self.optimizer = kind(base)
        self.params = [p for _, p in named]
        self.source = source
        # No gradient is that of the step before, or there would be no noise to climb along.
        self.sizes = itertools.cycle((1.0, 0.5, -1.0))

    def gradients(self) -> None:
        """Make all anew, as a pass does."""
        size = next(self.sizes)
        for p, grad in zip(self.params, self.source, strict=True):
            p.grad = grad * size

    def clear(self) -> None:
        """Drop all."""
        for p in self.params:
            p.grad = None

    def __call__(self) -> float:
        """Take the step; seconds that are not spent on gradients."""
        if not self.optimizer.one_pass:
            self.gradients()
        begin = time.perf_counter()
        with self.optimizer.perturbed():
            spent = time.perf_counter() - begin
            self.gradients()
            begin = time.perf_counter()
        self.optimizer.step()
        spent += time.perf_counter() - begin
        self.clear()
        return spent

    def plain(self) -> None:
        """Two gradients that replace each other, and no more."""
        self.gradients()
        self.gradients()
        self.clear()


def measure(named: Named, repeats: int) -> dict[str, Any]:
    size = sum(p.numel() * p.element_size() for _, p in named)
    seconds: dict[str, list[float]] = {name: [] for name in KINDS}
    memory: dict[str, float] = {}
    source = [torch.randn_like(p) for _, p in named]
    for name, kind in KINDS.items():
        step = Step(kind, named, source)
        step()
        alone = max(allocations(step.plain))
        room = step.optimizer._workspace
        memory[name] = (max(allocations(step)) + room.nbytes - alone) / size
    steps = {name: Step(kind, named, source) for name, kind in KINDS.items()}
    for turn in range(-1, repeats):  # one turn to warm up
        for name, step in steps.items():
            spent = step()
            if turn >= 0:
                seconds[name].append(spent)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "tensors": len(named),
        "numbers": sum(p.numel() for _, p in named),
        "seconds": medians,
        "ratio_to_sam": {name: value / medians["SAM"] for name, value in medians.items()},
        "peak_beyond_gradients_in_parameters": memory,
        "kept_between_steps_in_parameters": {
            name: kept(step) / size for name, step in steps.items()
        },
        "workspace_in_parameters": {
            name: step.optimizer._workspace.nbytes / size for name, step in steps.items()
        },
    }


def kept(step: Step) -> int:
    """Bytes in the state of the base that the variant has put there."""
    return sum(
        value.numel() * value.element_size()
        for state in step.optimizer.state.values()
        for key, value in state.items()
        if key.startswith("sam_")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="many small tensors alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sets = {"many small": many_small}
    if not options.small:
        sets["WRN-28-10"] = wrn_28_10
    origin = provenance({})
    record = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        **{name: origin[name] for name in ("commit", "device", "date")},
        "threads": options.threads,
        "repeats": options.repeats,
        "sets": {name: measure(make(), options.repeats) for name, make in sets.items()},
    }
    OUT.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
