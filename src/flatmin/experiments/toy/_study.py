"""Hundreds of toy networks at once: trained in every way under study, tested at every variance."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from flatmin import Ball, Elementwise
from flatmin._streams import seed_for, stream
from flatmin.data import figure8
from flatmin.ensemble import Ensemble, ensemble_outputs, stack_networks
from flatmin.ensemble.side_by_side import side_by_side
from flatmin.models import ReportMLP
from flatmin.record.files import read_checked, write_checked
from flatmin.record.progress import progress

BATCH, LEARNING_RATE = 32, 1e-3
TEST_VARIANCES = torch.arange(1, 80, 0.5)
EPOCHS_BETWEEN_SAVES = 20

ROUNDING = (
    "Another kind of processor or version of torch rounds otherwise, and after thousands of steps "
    "its networks are others. A rerun elsewhere is a new draw of the same size: numbers move "
    "within their errors, and with them a verdict that is close to its border."
)


@dataclass(frozen=True, slots=True)
class Way:
    """A way to train a network: around Adam, in a ball or without one.

    As reported, every network has a start and an order of its own, and an epoch takes the slices
    ``[i:i+32]`` for i = 0 … 61 and the last 16 points: 109 of 2,000 points, in 63 steps. Otherwise
    all ways share start and batches, and an epoch takes every point once. The points are the same.
    """

    ball: Ball | None
    as_reported: bool = False


def sam(rho: float) -> Ball:
    """The ball of SAM."""
    return Ball(rho)


def asam(rho: float) -> Ball:
    """The ball of ASAM as published: eta = 0.01, biases not scaled."""
    return Ball(rho, scale=Elementwise(0.01, biases=False))


def invariant_asam(rho: float) -> Ball:
    """The ball that rescaling cannot change: biases scaled, eta = 0."""
    return Ball(rho, scale=Elementwise(0.0, biases=True))


@dataclass(frozen=True, slots=True)
class Trained:
    """A network for each way, training variance and seed: ``[ways, variances, seeds, …]``.

    ``diverged`` names networks, as (way, variance, seed), whose weights did not stay finite.
    """

    params: dict[str, Tensor]
    diverged: list[tuple[int, int, int]]


def train(
    ways: Sequence[Way],
    variances: Sequence[float],
    *,
    seeds: int,
    epochs: int,
    points: int,
    scratch: Path,
    description: str,
) -> Trained:
    """Train a network of each way on each training variance, for each seed.

    Args:
        ways: Ways to train.
        variances: Variances of the training sets.
        seeds: Number of training sets of each variance.
        epochs: Epochs; the learning rate falls along a cosine from epoch to epoch.
        points: Points of each training set.
        scratch: Folder in which the state of an interrupted run is kept.
        description: What the progress bar says; also names the state.

    Returns:
        The networks.
    """
    shape = (len(ways), len(variances), seeds)
    inputs, targets = (
        t.expand(len(ways), *t.shape).flatten(0, 2)
        for t in labeled_points("train", variances, seeds, points)
    )
    ensemble = Ensemble(
        ReportMLP(),
        stack_networks(
            [
                _start(way, w, v, s)
                for w, way in enumerate(ways)
                for v in variances
                for s in range(seeds)
            ]
        ),
        [way.ball for way in ways for _ in range(shape[1] * seeds)],
        partial(torch.optim.Adam, lr=LEARNING_RATE, fused=True),
        schedule=partial(CosineAnnealingLR, T_max=epochs),
    )
    kept = scratch / f"{description}.pt"
    saved = read_checked(kept)  # a damaged one begins anew
    if saved is not None:
        ensemble.load_state_dict(torch.load(io.BytesIO(saved)))
    for epoch in progress(range(ensemble.epoch, epochs), description):
        order = _orders(ways, variances, seeds, epoch, points)
        ensemble.train_epoch(inputs, targets, order, BATCH)
        if ensemble.epoch % EPOCHS_BETWEEN_SAVES == 0:
            buffer = io.BytesIO()
            torch.save(ensemble.state_dict(), buffer)
            write_checked(kept, buffer.getvalue())
    return Trained(
        {name: p.reshape(*shape, *p.shape[1:]) for name, p in ensemble.params.items()},
        [
            (m // (shape[1] * seeds), m // seeds % shape[1], m % seeds)
            for m in sorted(ensemble.diverged)
        ],
    )


def labeled_points(
    purpose: str, variances: Sequence[float], seeds: int, points: int
) -> tuple[Tensor, Tensor]:
    """Sets of points ``[variances, seeds, points, 2]`` with labels, one generator per seed."""
    sets = [
        figure8(points, torch.tensor(variances), generator=stream(purpose, seed))
        for seed in range(seeds)
    ]
    return torch.stack([x for x, _ in sets], dim=1), torch.stack([y for _, y in sets], dim=1)


def test(params: dict[str, Tensor], points: int, description: str) -> tuple[Tensor, Tensor]:
    """Cross-entropy and error rate of networks ``[ways, variances, seeds]`` at all test variances.

    For each seed there is one test set of each variance, which all its networks see.

    Args:
        params: Parameters of the networks.
        points: Points of each test set.
        description: What the progress bar says.

    Returns:
        Mean loss in nats, and share of errors, each ``[ways, variances, seeds, test variances]``.
    """
    shape = next(iter(params.values())).shape[:3]

    def of_seed(seed: int) -> Tensor:
        own = {name: p[:, :, seed].flatten(0, 1) for name, p in params.items()}
        sets = figure8(points, TEST_VARIANCES, generator=stream("test", seed))
        return torch.stack([scores(own, x, y) for x, y in zip(*sets, strict=True)], dim=-1)

    every = side_by_side(of_seed, progress(range(shape[2]), description))
    loss, error = torch.stack(every, dim=2)  # each [ways · variances, seeds, test variances]
    return loss.reshape(*shape, -1), error.reshape(*shape, -1)


def one_class(params: dict[str, Tensor], points: int) -> Tensor:
    """Whether networks predict one class for everything: ``[ways, variances, seeds]``.

    Args:
        params: Parameters of the networks.
        points: Points of each test set. Looked at is the widest, which reaches wherever any does.

    Returns:
        True where they do.
    """
    seeds = next(iter(params.values())).shape[2]
    found = []
    for seed in range(seeds):
        own = {name: p[:, :, seed].flatten(0, 1) for name, p in params.items()}
        widest = figure8(points, TEST_VARIANCES, generator=stream("test", seed))[0][-1]
        logits = ensemble_outputs(ReportMLP(), own, widest, shared=True)
        first = logits[..., 0] >= logits[..., 1]
        found.append(first.all(dim=1) | ~first.any(dim=1))
    shape = next(iter(params.values())).shape[:2]
    return torch.stack(found, dim=1).reshape(*shape, seeds)


def scores(params: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy and share of errors of each member: ``[2, members]``.

    Args:
        params: Stacked parameters.
        inputs: Points that all members see, ``[n, 2]``, or those of each, ``[members, n, 2]``.
        targets: Their labels.

    Returns:
        The two scores; of two classes, the cross-entropy is log(1 + exp(−margin)).
    """
    logits = ensemble_outputs(ReportMLP(), params, inputs, shared=inputs.ndim == 2)
    margin = (logits[..., 1] - logits[..., 0]) * (2 * targets - 1)
    # Equal outputs are no decision: half of them would be wrong by a toss of a coin.
    wrong = (margin < 0).to(margin) + 0.5 * (margin == 0).to(margin)
    return torch.stack((-F.logsigmoid(margin).mean(dim=-1), wrong.mean(dim=-1)))


def start(*name: object) -> ReportMLP:
    """An untrained network that belongs to a purpose, as a stream does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(*name))
        return ReportMLP()


def _start(way: Way, number: int, variance: float, seed: int) -> ReportMLP:
    return start("start", number if way.as_reported else "", variance, seed)


def _orders(
    ways: Sequence[Way], variances: Sequence[float], seeds: int, epoch: int, points: int
) -> Tensor:
    """The order of each network's epoch; a pure function of the epoch, so that runs can resume."""

    def of(*name: object) -> Tensor:
        return torch.stack(
            [
                torch.randperm(points, generator=stream("order", *name, v, s, epoch))
                for v in variances
                for s in range(seeds)
            ]
        )

    steps = points // BATCH
    overlapping = (torch.arange(steps)[:, None] + torch.arange(BATCH)).flatten()
    slices = torch.cat((overlapping, torch.arange(steps * BATCH, points)))
    shared = of()
    return torch.cat(
        [of(w)[:, slices] if way.as_reported else shared for w, way in enumerate(ways)]
    )
