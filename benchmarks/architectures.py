"""What may be done to the networks of timm and torchvision, and whether their functions stay.

One architecture of each family, the one with the fewest parameters: a family is what a file of the
collection names with the same leading letters. Each has random weights, noise on every parameter
and statistic (for zeros hide what ordinary numbers show), eval mode and float64. What
`find_scalings`, `find_permutations` and `find_flips` offer is then drawn at random, one applied
after the other, and the largest change of an output is set against the rms of all. Beside it stands
what rounding does: the same change where each parameter is moved by its last bit.

    pip install timm torchvision
    python benchmarks/architectures.py      # writes docs/results/architectures.json, or goes on
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.record.provenance import provenance
from flatmin.symmetry import find_flips, find_permutations, find_scalings, flip, permute, rescale
from flatmin.symmetry.evaluate import deviation, outputs_at

OUT = Path(__file__).parents[1] / "docs" / "results" / "architectures.json"
NOISE = 0.1
LAST_BIT = 2.0**-52
ALLOWED = 1e-10


def collections() -> tuple[Any, Any]:
    """Return timm, and the models of torchvision."""
    try:
        import torchvision
    except RuntimeError:  # built for another torch than the one that is there
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", boxes)
        import torchvision
    import timm

    return timm, torchvision.models


def build(name: str) -> nn.Module:
    """A network with random weights: ``timm/…`` or ``torchvision/…``."""
    timm, torchvision = collections()
    where, _, architecture = name.partition("/")
    if where == "timm":
        return timm.create_model(architecture)
    extra = {"init_weights": True} if architecture in ("googlenet", "inception_v3") else {}
    return torchvision.get_model(architecture, weights=None, **extra)


def parameters_of(name: str) -> int:
    """How many it has, without making them where that can be."""
    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                return sum(p.numel() for p in build(name).parameters())
        except Exception:  # whatever it is, examining it says it
            continue
    return sys.maxsize


def families() -> dict[str, int]:
    """The smallest architecture of each family, and its number of parameters; small ones first."""
    timm, torchvision = collections()
    files = {
        name: f"timm.{module}"
        for module in timm.list_modules()
        for name in (f"timm/{n}" for n in timm.list_models(module=module))
    }
    files |= {f"torchvision/{n}": "torchvision" for n in torchvision.list_models(torchvision)}
    smallest: dict[tuple[str, str], tuple[int, str]] = {}
    for name, file in files.items():
        architecture = name.partition("/")[2]
        if architecture.startswith("test_"):  # toys for the tests of timm
            continue
        letters = re.match("[a-z]+", architecture)
        family = (file, letters[0] if letters else architecture)
        size = parameters_of(name)
        smallest[family] = min(smallest.get(family, (size, name)), (size, name))
    return {name: size for size, name in sorted(smallest.values())}


def example(network: nn.Module) -> Tensor:
    """Two pictures, as small as the network takes them."""
    settings = getattr(network, "default_cfg", {"input_size": (3, 224, 224)})
    channels, side, _ = settings["input_size"]
    sides = [side] if settings.get("fixed_input_size") else [64, 128, side]
    for size in sides:
        pictures = torch.randn(2, channels, size, size, dtype=torch.float64)
        try:
            with torch.no_grad():
                deepcopy(network)(pictures)
            return pictures
        except Exception as error:  # whatever it says to one too small
            refused = error
    raise refused


def shaken(network: nn.Module) -> nn.Module:
    """The same with noise: a tenth of its rms on each tensor, 0.1 where that is zero."""
    with torch.no_grad():
        for name, t in [*network.named_parameters(), *network.named_buffers()]:
            if not t.is_floating_point() or not t.numel():
                continue
            if name.endswith("running_var"):
                t.mul_(torch.empty_like(t).uniform_(0.5, 2.0))
            elif isinstance(t, nn.Parameter) or name.endswith("running_mean"):
                t.add_(torch.randn_like(t), alpha=NOISE * (t.square().mean().sqrt().item() or 1.0))
    return network


def examine(name: str, draws: int) -> dict[str, Any]:
    """Find what may be done to one network, do it, and look at its outputs."""
    torch.manual_seed(0)
    begin = time.perf_counter()
    network = shaken(build(name).eval().double())
    pictures = example(network)
    found = {
        "scalings": find_scalings(network, pictures),
        "permutations": find_permutations(network, pictures),
        "flips": find_flips(network, pictures),
    }
    seconds = time.perf_counter() - begin
    before = outputs_at(network, {}, pictures)
    worst = 0.0
    for draw in range(draws):
        source = torch.Generator().manual_seed(draw)
        twin = deepcopy(network)
        for one, act in zip(found.values(), (rescale, permute, flip), strict=True):
            if one.groups:
                act(twin, one, one.sample(source))
        worst = max(worst, deviation(before, outputs_at(twin, {}, pictures)))
    twin = deepcopy(network)
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(1.0 + LAST_BIT * torch.randint(-1, 2, p.shape, dtype=p.dtype))
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "side": pictures.shape[-1],
        **{f"{kind}_groups": len(one.groups) for kind, one in found.items()},
        **{f"{kind}_units": sum(g.size for g in one.groups) for kind, one in found.items()},
        "no_law": sum("no rule" in s.reason for one in found.values() for s in one.stopped),
        "draws": draws,
        "deviation": worst,
        "last_bit": deviation(before, outputs_at(twin, {}, pictures)),
        "seconds_to_find": round(seconds, 1),
    }


def apart(name: str, draws: int, minutes: float) -> dict[str, Any]:
    """The same in a process of its own, which may run out of time or memory."""
    command = [sys.executable, __file__, "--one", name, "--draws", str(draws)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        return {"failed": f"not finished after {minutes:g} minutes"}
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        return {"failed": lines[-1][:300]}
    row: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return row


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The counts that the documentation quotes."""
    done = {name: row for name, row in rows.items() if "failed" not in row}
    kinds = ("scalings", "permutations", "flips")
    return {
        "architectures": len(done),
        "with_scalings": sum(row["scalings_groups"] > 0 for row in done.values()),
        "with_a_group": sum(any(row[f"{kind}_groups"] for kind in kinds) for row in done.values()),
        "units_scaled": sum(row["scalings_units"] for row in done.values()),
        "within": sum(row["deviation"] <= ALLOWED for row in done.values()),
        "beyond": {n: r["deviation"] for n, r in done.items() if not r["deviation"] <= ALLOWED},
        "without_a_law": sorted(n for n, r in done.items() if r["no_law"]),
        "failed": {name: row["failed"] for name, row in rows.items() if "failed" in row},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=15.0, help="limit for each network")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--again", nargs="*", default=[], help="names to examine once more")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--one", help="examine this one alone, and print what was found")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one:
        print(json.dumps(examine(options.one, options.draws)))
        return
    record = json.loads(options.out.read_text()) if options.out.exists() else {"rows": {}}
    rows, origin = record["rows"], provenance({})
    versions = {"torch": torch.__version__, "timm": collections()[0].__version__}
    record |= {name: origin[name] for name in ("commit", "device", "date")} | versions
    record["families"] = record.get("families") or families()
    left = [n for n in record["families"] if n not in rows or n in options.again]

    def finish(name: str) -> None:
        row = apart(name, options.draws, options.minutes)
        rows[name] = row
        rows_in_order = {n: rows[n] for n in record["families"] if n in rows}
        text = json.dumps({**record, "summary": summary(rows), "rows": rows_in_order}, indent=1)
        options.out.write_text(text + "\n")
        said = row.get("failed") or f"{row['scalings_units']} units, {row['deviation']:.0e}"
        print(f"{len(rows)}/{len(record['families'])} {name}: {said}", flush=True)

    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(finish, left))


if __name__ == "__main__":
    main()
