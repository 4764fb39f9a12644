"""What a whole training step costs with SAM and ASAM, beyond two gradients and one base step.

Times steps of WRN-16-2 (batch 128, channels last), the report's perceptron and a small transformer:
the base optimizer alone, the base after two gradients, which nothing can undercut, and SAM and
ASAM. The contenders take turns, each on a copy of the network; a ratio is the median over the turns
of both times in one turn. Since the two gradients are nearly all of it and never take equally long
twice, the time outside of them is measured too, within the same steps: "outside" is the rest of the
step beyond what is outside in the base after two gradients. Then the parts of it, one by one.

    python benchmarks/training_step.py             # writes docs/results/training_step.json and .png
    python benchmarks/training_step.py --draw      # draws the figure again from the JSON

On a GPU: `--device cuda --networks WRN-28-10 --dtype bfloat16`.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flatmin import ASAM, SAM
from flatmin.models import ReportMLP, WideResNet
from flatmin.optim._gradients import all_finite
from flatmin.record.provenance import provenance

OUT = Path(__file__).parents[1] / "docs" / "results" / "training_step"

LIMIT = "two gradients"
OPTIONS: dict[str, tuple[type, dict[str, bool]]] = {
    "SAM": (SAM, {}),
    "ASAM": (ASAM, {}),
    "SAM, fused": (SAM, {"fused": True}),
    "ASAM, fused": (ASAM, {"fused": True}),
    "SAM, model=": (SAM, {"model": True}),
    "ASAM, model=": (ASAM, {"model": True}),
}


class Transformer(nn.Module):
    """A causal language model of two layers on 64 tokens, with dropout."""

    def __init__(self, tokens: int = 256, width: int = 128, length: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, tokens)
        self.mask: Tensor
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of shape [N, tokens, length]."""
        hidden = self.layers(self.embed(tokens) + self.position, self.mask, is_causal=True)
        logits: Tensor = self.head(hidden)
        return logits.transpose(1, 2)


@dataclass(frozen=True)
class Task:
    """A network and one batch; ``repeats`` is how many turns are worth it by default."""

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    repeats: int

    def to(self, device: torch.device) -> Task:
        """The same on a device."""
        inputs, targets = self.inputs.to(device), self.targets.to(device)
        return Task(self.model.to(device), inputs, targets, self.repeats)


def wide_resnet(depth: int, width: int, repeats: int, batch: int = 128) -> Task:
    images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    model = WideResNet(depth, width).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Task(model, images, torch.randint(10, (batch,)), repeats)


def perceptron() -> Task:
    return Task(ReportMLP(), torch.randn(200, 2), torch.randint(2, (200,)), 300)


def transformer() -> Task:
    tokens = torch.randint(256, (16, 65))
    return Task(Transformer(), tokens[:, :-1], tokens[:, 1:], 40)


NETWORKS: dict[str, Callable[[], Task]] = {
    "WRN-16-2": lambda: wide_resnet(16, 2, repeats=7),
    "perceptron": perceptron,
    "transformer": transformer,
    "WRN-28-10": lambda: wide_resnet(28, 10, repeats=7),
}


class Contender:
    """A network of its own with an optimizer, and a clock for the gradients alone."""

    def __init__(self, name: str, task: Task, dtype: torch.dtype) -> None:
        self.name, self.task, self.dtype = name, task, dtype
        self.model = copy.deepcopy(task.model)
        self.device = task.inputs.device
        base = torch.optim.SGD(self.model.named_parameters(), lr=1e-3, momentum=0.9)
        kind, options = OPTIONS.get(name, (None, {}))
        model = {"model": self.model} if "model" in options else {}
        others = {key: value for key, value in options.items() if key != "model"}
        self.optimizer: Any = kind(base, **model, **others) if kind else base
        self.inside = 0.0

    def gradient(self) -> Tensor:
        """One gradient at the present weights."""
        start = self.now()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.model(self.task.inputs)
            loss = nn.functional.cross_entropy(logits, self.task.targets)
        loss.backward()
        self.inside += self.now() - start
        return loss

    def step(self) -> tuple[float, float]:
        """Seconds of a training step, and of that outside the gradients."""
        self.inside = 0.0
        start = self.now()
        self.optimizer.zero_grad()
        self.gradient()
        if self.name == LIMIT:
            self.optimizer.zero_grad()
            self.gradient()
        elif self.name != "base":
            with self.optimizer.perturbed():
                self.gradient()
        self.optimizer.step()
        total = self.now() - start
        return total, total - self.inside

    def now(self) -> float:
        """Seconds, when the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def parts(self, repeats: int) -> dict[str, float]:
        """Median seconds of what is outside the gradients."""
        optimizer = self.optimizer
        grads = [p.grad for p in self.model.parameters()]

        def climb_and_restore() -> None:
            with optimizer.perturbed():
                pass

        seconds: dict[str, list[float]] = {}
        for turn in range(-2, repeats):
            for p, grad in zip(self.model.parameters(), grads, strict=True):
                p.grad = None if grad is None else grad.clone()  # fused takes it away
            for name, action in {
                "base step": optimizer.base.step,
                "finite check": partial(all_finite, optimizer.param_groups),
                "climb and restore": climb_and_restore,
            }.items():
                start = self.now()
                action()
                if turn >= 0:
                    seconds.setdefault(name, []).append(self.now() - start)
        return {name: statistics.median(values) for name, values in seconds.items()}


def measure(task: Task, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    contenders = [Contender(name, task, dtype) for name in ("base", LIMIT, *OPTIONS)]
    times: dict[str, list[tuple[float, float]]] = {c.name: [] for c in contenders}
    for turn in range(-2, repeats):  # two turns to warm up
        for contender in contenders:
            pair = contender.step()
            if turn >= 0:
                times[contender.name].append(pair)
    total = {name: [pair[0] for pair in pairs] for name, pairs in times.items()}
    outside = {name: statistics.median(p[1] for p in pairs) for name, pairs in times.items()}
    limit = statistics.median(total[LIMIT])
    ratios = {
        name: [a / b for a, b in zip(values, total[LIMIT], strict=True)]
        for name, values in total.items()
    }
    return {
        "tensors": len(list(task.model.parameters())),
        "numbers": sum(p.numel() for p in task.model.parameters()),
        "repeats": repeats,
        "seconds": {name: statistics.median(values) for name, values in total.items()},
        "seconds_outside": outside,
        "ratios": {name: statistics.median(values) for name, values in ratios.items()},
        "ratio_quartiles": {
            name: statistics.quantiles(values, n=4)[::2] for name, values in ratios.items()
        },
        "ratios_from_outside": {
            name: 1.0 + (seconds - outside[LIMIT]) / limit
            for name, seconds in outside.items()
            if name in OPTIONS
        },
        "parts": {c.name: c.parts(3 * repeats) for c in contenders if c.name in OPTIONS},
    }


def draw(record: dict[str, Any], out: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    networks = record["networks"]
    figure, axes = plt.subplots(
        len(networks), 1, figsize=(8, 2.2 * len(networks) + 1), layout="constrained", squeeze=False
    )
    for axis, (title, numbers) in zip(axes[:, 0], networks.items(), strict=True):
        names = [name for name in numbers["ratios"] if name in OPTIONS][::-1]
        values = [100.0 * (numbers["ratios_from_outside"][name] - 1.0) for name in names]
        axis.barh(names, values, color="#1b7837")
        for y, (name, value) in enumerate(zip(names, values, strict=True)):
            axis.text(value, y, f" {value:.2g} % ({numbers['ratios'][name]:.3f})", va="center")
        axis.set_xlim(0, 1.3 * max(values))
        axis.set_title(f"{title}: {1e3 * numbers['seconds'][LIMIT]:,.4g} ms", loc="left")
    axes[-1, 0].set_xlabel("time beyond two gradients and one base step, %")
    figure.suptitle(
        "from the time outside the gradients; in brackets\n"
        "the ratio of whole steps, noise and all\n"
        f"{record['machine']}, {record['device']}, {record['threads']} threads, {record['dtype']}, "
        f"torch {record['torch']}",
        fontsize=10,
    )
    figure.savefig(out.with_suffix(".png"), dpi=200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = [name for name in NETWORKS if name != "WRN-28-10"]
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=default)
    parser.add_argument("--repeats", type=int, help="turns; by default fit for each network")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    path = options.out.with_suffix(".json")
    if not options.draw:
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        networks = {}
        for name in options.networks:
            task = NETWORKS[name]().to(options.device)
            repeats = options.repeats or task.repeats
            networks[name] = measure(task, getattr(torch, options.dtype), repeats)
        origin = provenance({"device": str(options.device)})
        record = {
            **{name: origin[name] for name in ("commit", "device", "date")},
            "machine": platform.processor() or platform.machine(),
            "threads": options.threads,
            "dtype": options.dtype,
            "torch": torch.__version__,
            "networks": networks,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False))
    record = json.loads(path.read_text())
    for title, numbers in record["networks"].items():
        print(f"{title} (two gradients, one base step: {numbers['seconds'][LIMIT] * 1e3:.4g} ms)")
        for name, ratio in numbers["ratios"].items():
            outside = 1e3 * numbers["seconds_outside"][name]
            derived = numbers["ratios_from_outside"].get(name, float("nan"))
            parts = numbers["parts"].get(name, {})
            print(
                f"  {name:14s} {ratio:6.3f}   outside {outside:7.3f} ms: {derived:6.4f}   "
                + ", ".join(f"{part} {1e3 * value:.3f}" for part, value in parts.items())
            )
    draw(record, options.out)


if __name__ == "__main__":
    main()
