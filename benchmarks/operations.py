"""How many operations a climb and restore dispatches, as the number of tensors grows.

Counted is what reads or writes numbers as torch dispatches it: a foreach operation on a list is
one, views and allocations are none. On small tensors the time goes into dispatching, and on a GPU
each operation is a launch or a few. Large tensors on a CPU are cut into pieces that fit the cache,
so there the count follows the numbers instead: see WRN-28-10.

    python benchmarks/operations.py         # writes docs/results/operations.json, prints a table
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from step_cost import Action, Named, Ours, published_loop, pytorch_optimizer, ready, wrn_28_10
from torch.utils._python_dispatch import TorchDispatchMode

from flatmin import ASAM, SAM
from flatmin.record.provenance import provenance

OUT = Path(__file__).parents[1] / "docs" / "results" / "operations"


class Count(TorchDispatchMode):
    """Counts the operations that read or write numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += not (func.is_view or "empty" in func.name() or "profiler" in func.name())
        return func(*args, **(kwargs or {}))


def contenders(named: Named) -> dict[str, Action]:
    table: dict[str, Action] = {}
    for name, kind in (("SAM", SAM), ("ASAM", ASAM)):
        adaptive = kind is ASAM
        table |= {
            name: Ours(named, kind),
            f"{name}, published loop": published_loop(named, adaptive, 0.05),
            f"{name}, pytorch-optimizer": pytorch_optimizer(named, adaptive, 0.05, False),
            f"{name}, pytorch-optimizer foreach": pytorch_optimizer(named, adaptive, 0.05, True),
        }
    return table


def count(named: Named) -> dict[str, int]:
    numbers = {}
    params = [p for _, p in named]
    ones = [torch.ones_like(p) for p in params]
    for name, action in contenders(named).items():
        for _ in range(2):  # the first may make what is made once
            ready(action, params, ones)
            with Count() as counter:
                action()
        numbers[name] = counter.number
    return numbers


def equal(tensors: int) -> Named:
    return [(f"{i}.weight", torch.nn.Parameter(torch.randn(64, 64))) for i in range(tensors)]


def mixed(tensors: int) -> Named:
    shapes = [(64, 64), (64,), (32, 16, 3, 3), (128, 64)]
    return [
        (f"{i}.weight", torch.nn.Parameter(torch.randn(shapes[i % len(shapes)])))
        for i in range(tensors)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tensors", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--skip-wrn", action="store_true", help="leave WRN-28-10 out")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    sets = {f"{n} of 64×64": equal(n) for n in options.tensors}
    sets |= {f"{n} of four shapes": mixed(n) for n in options.tensors}
    if not options.skip_wrn:
        sets["WRN-28-10"] = wrn_28_10()
    origin = provenance({})
    record = {
        **{name: origin[name] for name in ("commit", "device", "date")},
        "torch": torch.__version__,
        "sets": {name: count(set_) for name, set_ in sets.items()},
    }
    path = options.out.with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False))
    columns = list(record["sets"])
    print("| |", " | ".join(columns), "|")
    print("|---" * (len(columns) + 1) + "|")
    for name in record["sets"][columns[0]]:
        print(f"| {name} |", " | ".join(str(record["sets"][c][name]) for c in columns), "|")


if __name__ == "__main__":
    main()
