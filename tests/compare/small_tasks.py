"""Tasks that take a moment: files as a user would write them."""

from __future__ import annotations

from pathlib import Path

TABLE = """
import torch
from torch import nn
from flatmin.data import TensorSet
from flatmin.train import TrainConfig

config = TrainConfig(
    model="own", optimizer="sgd", lr=0.1, options={"momentum": 0.9}, batch_size=16
)


def model():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def data():
    source = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 4, generator=source)
    noise = 0.5 * torch.randn(200, generator=source)
    targets = (inputs[:, 0] * inputs[:, 1] + noise > 0).long()
    whole = TensorSet(inputs, targets, source="a made-up table")
    return whole.subset(torch.arange(120)), whole.subset(torch.arange(120, 200))
"""

# A loop of its own, whose numbers are drawn: sam is better by one, with a deviation of one.
DRAWN = """
import torch
from torch import nn

lr = 0.1
better = "larger"


def run(arm, seed, budget):
    x = nn.Parameter(torch.ones(1))
    optimizer = arm.wrap(torch.optim.SGD([x], lr=arm.lr))
    for step in range(budget):
        optimizer.param_groups[0]["lr"] = arm.lr * (1 - step / budget)

        def closure():
            optimizer.zero_grad()
            loss = x.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    source = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, generator=source)
    gain = (1.0 + noise[1].item()) if arm.rho else 0.0
    return {"score": noise[0].item() + gain, "validation": -abs(arm.lr - 0.1)}
"""


def written(folder: Path, text: str, *changes: tuple[str, str], name: str = "task.py") -> Path:
    """Write a task, changed as asked for."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path
