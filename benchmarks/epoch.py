"""Seconds of an epoch with SAM and ASAM, as `flatmin.train.train` reports them, against the base.

The base optimizer, SAM and ASAM around it train the same network on the same batches and take
turns, so that a busy machine slows all of them; a ratio is the median over the turns of both times
in one turn. The report: SAM 1.44 and ASAM 2.0 times Adam, on its GPU.

    python benchmarks/epoch.py                     # writes docs/results/epoch.json and .png
    python benchmarks/epoch.py --draw              # draws the figure again from the JSON

On a GPU: `--device cuda --models wrn-28-10 --precision bf16 --images 50000`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from flatmin.data import Augment, ImageSet
from flatmin.record.provenance import provenance
from flatmin.train import TrainConfig, train

OUT = Path(__file__).parents[1] / "docs" / "results" / "epoch"
MINIMIZERS = ("none", "sam", "asam")
BASES: dict[str, dict[str, Any]] = {
    "adam": {"lr": 1e-3},
    "sgd": {"lr": 0.1, "options": {"momentum": 0.9, "weight_decay": 5e-4}},
}


def noise(count: int) -> ImageSet:
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(10, (count,))
    return ImageSet(images, labels, tuple("abcdefghij"), "noise", (0.5,) * 3, (0.25,) * 3)


def measure(model: str, optimizer: str, options: argparse.Namespace) -> dict[str, Any]:
    count: int = options.images
    data = replace(noise(count), augment=Augment()), noise(100)
    seconds: dict[str, list[float]] = {name: [] for name in MINIMIZERS}
    for turn in range(-1, options.repeats):
        for name in MINIMIZERS:
            config = TrainConfig(
                model=model,
                optimizer=optimizer,
                minimizer=name,
                epochs=1,
                evaluate_train=0,
                channels_last=model != "cnn",
                precision=options.precision,
                **BASES[optimizer],
            )
            epoch = train(config, data, device=options.device).history[0]
            if turn >= 0:
                seconds[name].append(epoch.seconds)
    ratio = {
        f"{a} / {b}": statistics.median(x / y for x, y in zip(seconds[a], seconds[b], strict=True))
        for a, b in (("sam", "none"), ("asam", "none"), ("asam", "sam"))
    }
    rates = {name: count / statistics.median(values) for name, values in seconds.items()}
    return {"images_per_s": rates, "ratio": ratio}


def draw(record: dict[str, Any], out: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    runs = record["runs"]
    figure, axis = plt.subplots(figsize=(1.8 * len(runs) + 2, 3.8), layout="constrained")
    for shift, (name, color) in enumerate((("sam", "#d95f02"), ("asam", "#1b7837"))):
        values = [run["ratio"][f"{name} / none"] for run in runs.values()]
        places = [place + 0.35 * shift for place in range(len(runs))]
        bars = axis.bar(places, values, 0.33, color=color, label=name.upper())
        axis.bar_label(bars, fmt="%.2f", padding=-16, fontsize=9, color="white")
    axis.axhline(2, color="0.4", ls=":", label="two gradients")
    axis.set_xticks([place + 0.175 for place in range(len(runs))], list(runs))
    axis.set_ylabel("seconds per epoch / those of the base")
    axis.set_ylim(0, 2.6)
    axis.legend(ncols=3, fontsize=9, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(
        f"{record['machine']}, {record['threads']} threads, torch {record['torch']}", fontsize=9
    )
    figure.savefig(out.with_suffix(".png"), dpi=200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["cnn", "wrn-16-1"])
    parser.add_argument("--images", type=int, default=2560)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bases", nargs="+", choices=BASES, default=list(BASES))
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--out", type=Path, default=OUT, help="where to, without .json")
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    out: Path = options.out
    if not options.draw:
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        origin = provenance({"device": options.device})
        record = {
            **{name: origin[name] for name in ("commit", "device", "date")},
            "machine": platform.processor() or platform.machine(),
            "threads": options.threads,
            "torch": torch.__version__,
            "images": options.images,
            "precision": options.precision,
            "repeats": options.repeats,
            "runs": {
                f"{model}, {base}": measure(model, base, options)
                for model in options.models
                for base in options.bases
            },
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".json").write_text(json.dumps(record, indent=1))
    record = json.loads(out.with_suffix(".json").read_text())
    for name, run in record["runs"].items():
        ratios = ", ".join(f"{key} {value:.3f}" for key, value in run["ratio"].items())
        print(f"{name}: {ratios}; {run['images_per_s']['none']:,.0f} images per s")
    draw(record, out)


if __name__ == "__main__":
    main()
