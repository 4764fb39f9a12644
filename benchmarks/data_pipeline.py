"""Images loaded and augmented per second, and an epoch with them, against a DataLoader.

The same crops, flips and normalization three times: `flatmin.data.Batches`, whole batches on the
device of the network, and `torch.utils.data.DataLoader` with two worker processes, which live on
from epoch to epoch, and the augmentation per image: "usual" by the operations that the transforms
of torchvision apply to a Pillow image, as in the published code of SAM and ASAM, and "lean" by the
fewest operations on a tensor. Then an epoch of Adam on the report's small CNN with each. The
contenders take turns, so that a busy machine slows all of them; medians are reported. The images
are noise of CIFAR's size: what they show costs no time.

    python benchmarks/data_pipeline.py             # writes docs/results/data_pipeline.json and .png
    python benchmarks/data_pipeline.py --draw      # draws the figure again from the JSON
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from flatmin.data import Augment, Batches, ImageSet
from flatmin.models import ReportCNN
from flatmin.record.provenance import provenance

OUT = Path(__file__).parents[1] / "docs" / "results" / "data_pipeline"
BATCH, WORKERS, PAD = 128, 2, 4
NAMES = ("flatmin", "DataLoader, usual", "DataLoader, lean")


def noise(count: int) -> ImageSet:
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(10, (count,))
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    return ImageSet(images, labels, tuple("abcdefghij"), "noise", mean, std)


class Usual(Dataset[tuple[Tensor, int]]):
    """RandomCrop, RandomHorizontalFlip, ToTensor, Normalize, spelled out."""

    def __init__(self, image_set: ImageSet) -> None:
        self.pixels = image_set.images.permute(0, 2, 3, 1).numpy()
        self.labels, self.mean, self.std = image_set.labels.tolist(), image_set.mean, image_set.std

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        padded = ImageOps.expand(Image.fromarray(self.pixels[index]), border=PAD, fill=0)
        top, left = (int(torch.randint(0, 2 * PAD + 1, (1,)).item()) for _ in range(2))
        image = padded.crop((left, top, left + 32, top + 32))
        if torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous()
        mean = torch.as_tensor(self.mean).view(-1, 1, 1)
        std = torch.as_tensor(self.std).view(-1, 1, 1)
        return pixels.to(torch.float32).div(255).clone().sub_(mean).div_(std), self.labels[index]


class Lean(Dataset[tuple[Tensor, int]]):
    """Pad, crop, flip and normalize a tensor, with nothing that could be left out."""

    def __init__(self, image_set: ImageSet) -> None:
        self.images, self.labels = image_set.images, image_set.labels.tolist()
        self.mean = torch.tensor(image_set.mean).view(3, 1, 1)
        self.std = torch.tensor(image_set.std).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        padded = F.pad(self.images[index], (PAD, PAD, PAD, PAD))
        top, left = random.randint(0, 2 * PAD), random.randint(0, 2 * PAD)
        image = padded[:, top : top + 32, left : left + 32]
        if random.random() < 0.5:
            image = image.flip(-1)
        return image.float().div_(255).sub_(self.mean).div_(self.std), self.labels[index]


def loaders(image_set: ImageSet) -> dict[str, Iterable[tuple[Tensor, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    return {
        "flatmin": Batches(image_set, BATCH, generator=generator, augment=Augment(PAD)),
        **{
            name: DataLoader(
                kind(image_set), BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True
            )
            for name, kind in zip(NAMES[1:], (Usual, Lean), strict=True)
        },
    }


def loading(batches: Iterable[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    def work() -> None:
        for _ in batches:
            pass

    return work


def training(batches: Iterable[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    torch.manual_seed(0)
    net = ReportCNN()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def work() -> None:
        for images, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(net(images), labels).backward()
            optimizer.step()

    return work


def measure(count: int, repeats: int) -> dict[str, Any]:
    image_set = noise(count)
    feeds = loaders(image_set)
    jobs = {
        (kind, name): make(feeds[name])
        for kind, make in (("loading", loading), ("epoch", training))
        for name in NAMES
    }
    seconds: dict[tuple[str, str], list[float]] = {job: [] for job in jobs}
    for turn in range(-1, repeats):  # the first turn starts the workers
        for job, work in jobs.items():
            start = time.perf_counter()
            work()
            if turn >= 0:
                seconds[job].append(time.perf_counter() - start)
    return {
        kind: {
            "images_per_s": {
                name: count / statistics.median(seconds[kind, name]) for name in NAMES
            },
            "ratio": {
                name: statistics.median(
                    slow / fast
                    for fast, slow in zip(
                        seconds[kind, "flatmin"], seconds[kind, name], strict=True
                    )
                )
                for name in NAMES[1:]
            },
        }
        for kind in ("loading", "epoch")
    }


def ratios(record: dict[str, Any], kind: str) -> str:
    return " and ".join(f"{value:.1f}" for value in record[kind]["ratio"].values())


def draw(record: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    titles = {"loading": "loaded and augmented", "epoch": "trained on: small CNN, Adam"}
    for axis, (kind, title) in zip(axes, titles.items(), strict=True):
        values = [record[kind]["images_per_s"][name] for name in NAMES]
        labels = [name.replace(", ", ",\n") for name in NAMES]
        bars = axis.bar(labels, values, color=["#1b7837", "0.5", "0.7"], width=0.6)
        axis.bar_label(bars, [f"{value:,.0f}" for value in values], padding=2)
        axis.set_title(f"{title}\n{ratios(record, kind)} times as fast", fontsize=10)
        axis.set_ylabel("images per second")
        axis.set_ylim(0, 1.12 * max(values))
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{record['machine']}, {record['cores']} cores, {record['threads']} threads, "
        f"torch {record['torch']}; batch {BATCH}, DataLoader with {WORKERS} workers",
        fontsize=9,
    )
    figure.savefig(OUT.with_suffix(".png"), dpi=200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    if not options.draw:
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        origin = provenance({})
        record = {
            **{name: origin[name] for name in ("commit", "device", "date")},
            "machine": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": options.threads,
            "torch": torch.__version__,
            "images": options.images,
            "repeats": options.repeats,
            **measure(options.images, options.repeats),
        }
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.with_suffix(".json").write_text(json.dumps(record, indent=1))
    record = json.loads(OUT.with_suffix(".json").read_text())
    for kind in ("loading", "epoch"):
        rates = record[kind]["images_per_s"]
        print(
            f"{kind}: {', '.join(f'{name} {rate:,.0f}' for name, rate in rates.items())} images "
            f"per s, {ratios(record, kind)} times as fast"
        )
    draw(record)


if __name__ == "__main__":
    main()
