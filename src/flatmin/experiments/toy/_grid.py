"""A grid of toy networks that differ in whatever may make them flat."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from flatmin import Ball
from flatmin._streams import stream
from flatmin.ensemble import Ensemble, stack_networks
from flatmin.experiments.toy._adamw import MemberwiseAdamW
from flatmin.experiments.toy._study import asam, labeled_points, sam, start
from flatmin.models import ReportMLP

KINDS = ("Adam", "SAM", "ASAM")
AXES = ("epochs", "batch size", "optimizer", "learning rate", "weight decay", "variance", "draw")
"""The dimensions of the grid; a draw is a training set, a start and an order of batches."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every combination of these, around Adam with decoupled weight decay."""

    draws: int = 20
    """Training sets of each variance, each with a start and an order; intervals are over them."""
    variances: tuple[float, ...] = (5.0, 15.0, 30.0)
    """Variances of the training sets, and of their test sets."""
    epochs: tuple[int, ...] = (50, 200)
    """Epochs; the learning rate falls along a cosine over them."""
    batches: tuple[int, ...] = (16, 64)
    """Batch sizes."""
    radii: tuple[float, ...] = (0.1, 0.5)
    """Radii of SAM and of ASAM; that of Adam alone is zero."""
    rates: tuple[float, ...] = (1e-3, 1e-2)
    """Learning rates."""
    decays: tuple[float, ...] = (0.0, 0.3)
    """Weight decays."""
    points: int = 192
    """Points of each training set, so few that networks can learn them by heart."""
    test_points: int = 4000
    """Points of each test set."""
    sam_radius: float = 0.1
    """Radius of the ball that the measures climb in for T = 1, in parameter units."""
    radius: float = 0.2
    """The same for the other T, dimensionless."""
    steps: int = 10
    """Trial points of a climb to the worst case."""
    samples: int = 10
    """Random points of an average."""
    products: int = 15
    """Products with the Hessian for the largest eigenvalue."""
    scalings: int = 50
    """Scalings by U[0.5, 1.5], one on top of the other, that make the copy of a network,
    as in figures 2 to 4."""

    def __post_init__(self) -> None:
        if self.draws < 3:
            raise ValueError(
                f"draws must be at least 3, since intervals are over them, got {self.draws}."
            )

    @property
    def ways(self) -> dict[str, Ball | None]:
        """The optimizers: a kind and its radius, and the ball it climbs in."""
        return {
            "Adam": None,
            **{f"SAM {rho:g}": sam(rho) for rho in self.radii},
            **{f"ASAM {rho:g}": asam(rho) for rho in self.radii},
        }

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of the grid along ``AXES``."""
        lists = (self.epochs, self.batches, self.ways, self.rates, self.decays, self.variances)
        return (*map(len, lists), self.draws)


@dataclass(frozen=True, slots=True)
class Networks:
    """Trained networks, ``[members, ...]``, with what they have learnt and what they have not."""

    params: dict[str, Tensor]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def train_part(config: Config, kind: str, epochs: int, batch: int) -> Networks:
    """Train the networks that share epochs, batch size and kind of optimizer.

    Members lie along radius, learning rate, weight decay, variance and draw, the last one fastest.

    Raises:
        ValueError: If the weights of a network do not stay finite.
    """
    balls = [ball for name, ball in config.ways.items() if name.split()[0] == kind]
    cells = torch.cartesian_prod(*(torch.arange(n) for n in (len(balls), *config.shape[3:])))
    ball, rate, decay, variance, draw = cells.T
    of_network = variance, draw
    inputs, targets = _points("train", config, config.points)
    starts = [
        [start("prediction: start", v, d) for d in range(config.draws)] for v in config.variances
    ]
    ensemble = Ensemble(
        ReportMLP(),
        stack_networks(
            [starts[v][d] for v, d in zip(*map(Tensor.tolist, of_network), strict=True)]
        ),
        [balls[b] for b in ball.tolist()],
        partial(
            MemberwiseAdamW,
            rates=torch.tensor(config.rates)[rate],
            decays=torch.tensor(config.decays)[decay],
        ),
        schedule=partial(CosineAnnealingLR, T_max=epochs),
        together=len(cells),
    )
    for epoch in range(epochs):
        order = torch.stack(
            [
                torch.stack([_order(v, d, epoch, config.points) for d in range(config.draws)])
                for v in config.variances
            ]
        )
        ensemble.train_epoch(inputs[of_network], targets[of_network], order[of_network], batch)
    if ensemble.diverged:
        raise ValueError(
            f"{len(ensemble.diverged)} of {len(cells)} networks diverged, and a diverged network "
            f"has no sharpness; lower rates, got {config.rates}."
        )
    x, y = _points("test", config, config.test_points)
    return Networks(
        {name: p.double() for name, p in ensemble.params.items()},
        (inputs[of_network].double(), targets[of_network]),
        (x[of_network].double(), y[of_network]),
    )


def _points(part: str, config: Config, count: int) -> tuple[Tensor, Tensor]:
    """Points and labels, ``[variances, draws, count]``."""
    return labeled_points(f"prediction: {part}", config.variances, config.draws, count)


def _order(variance: float, draw: int, epoch: int, points: int) -> Tensor:
    """An order of an epoch that all networks of a draw share."""
    return torch.randperm(points, generator=stream("prediction: order", variance, draw, epoch))
