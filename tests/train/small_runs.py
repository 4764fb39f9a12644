"""A run that takes a fraction of a second, with everything that has a state: what tests train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer, load_diabetes
from torch import Tensor, nn
from torch.utils.data import Dataset

from flatmin.data import Augment, ImageSet, TensorSet
from flatmin.train import TrainConfig


def image_set(count: int, seed: int, classes: int = 3, size: int = 8) -> ImageSet:
    """Random images whose brightness tells their class a little."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    noise = torch.randint(160, (count, 1, size, size), generator=generator)
    images = (noise + 40 * labels[:, None, None, None]).to(torch.uint8)
    return ImageSet(images, labels, tuple("abcdefgh"[:classes]), "made up", (0.5,), (0.25,))


DATA = (replace(image_set(60, 0), augment=Augment(1)), image_set(20, 1))


class Small(nn.Module):
    """Dropout draws random numbers; BatchNorm keeps statistics."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, kernel_size=3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(144, classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def small(classes: int = 3) -> Small:
    """The same start every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small(classes)


def config(**changes: Any) -> TrainConfig:
    """Two epochs of six steps, with shuffling; the images are cropped and flipped too."""
    values = {"model": "own", "epochs": 2, "batch_size": 10, "lr": 0.05}
    return TrainConfig(**{**values, **changes})


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks agree in every bit, statistics included."""
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


class Attention(nn.Module):
    """Embedded tokens look at those that are not padding; a mask and dropout are its state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.looking = nn.Linear(8, 24)
        self.out = nn.Sequential(nn.LayerNorm(8), nn.Dropout(0.2), nn.Linear(8, 3))

    def forward(self, tokens: Tensor, there: Tensor) -> Tensor:
        query, key, value = self.looking(self.embedding(tokens)).chunk(3, dim=-1)
        mask = there[:, None, :].expand(-1, tokens.shape[1], -1)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(seen.mean(dim=1))


def table_network(inputs: int, outputs: int) -> nn.Module:
    """For rows of a table, with statistics and dropout."""
    return nn.Sequential(
        nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, outputs)
    )


def _table(load: Callable[..., Any], classes: bool) -> tuple[TensorSet, TensorSet]:
    rows, targets = (torch.from_numpy(part) for part in load(return_X_y=True))
    rows = (rows - rows.mean(dim=0)) / rows.std(dim=0)
    targets = targets if classes else ((targets - targets.mean()) / targets.std())[:, None]
    whole = TensorSet(rows, targets, load.__name__)
    return whole.subset(torch.arange(60)), whole.subset(torch.arange(60, 80))


def _tokens(count: int, seed: int) -> TensorSet:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(12, (count, 6), generator=generator)
    there = torch.arange(6) < torch.randint(2, 7, (count, 1), generator=generator)
    return TensorSet({"tokens": tokens, "there": there}, tokens[:, 0] % 3, "made up tokens")


class Noisy(Dataset[Any]):
    """Rows that are made one by one, with noise from a global generator."""

    def __init__(self, rows: TensorSet) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs: Any = self.rows.inputs
        return inputs[index] + 0.1 * torch.randn(30), self.rows.targets[index]


@dataclass(frozen=True)
class Kind:
    """Data of one kind, a network for them, and how it is trained."""

    data: Any
    build: Callable[[], nn.Module]
    goal: dict[str, Any] = field(default_factory=dict)

    def network(self) -> nn.Module:
        """The same start every time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.build()


CANCER = _table(load_breast_cancer, classes=True)
KINDS = {
    "images": Kind(DATA, Small),
    "table": Kind(CANCER, lambda: table_network(30, 2)),
    "numbers": Kind(
        _table(load_diabetes, classes=False),
        lambda: table_network(10, 1),
        {"loss": F.mse_loss, "metric": F.l1_loss},
    ),
    "tokens": Kind((_tokens(60, 0), _tokens(20, 1)), Attention),
    "examples": Kind((Noisy(CANCER[0]), Noisy(CANCER[1])), lambda: table_network(30, 2)),
}
