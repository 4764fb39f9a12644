"""What the networks of a grid score: losses, errors, and every measure of sharpness."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from flatmin._streams import stream
from flatmin._types import Params
from flatmin.ensemble import ensemble_outputs
from flatmin.experiments.toy._flatness import IDENTITY, INVARIANT, PUBLISHED, Effort, measure
from flatmin.experiments.toy._grid import KINDS, Config, Networks, train_part
from flatmin.experiments.toy._landscape import Landscape
from flatmin.experiments.toy._study import scores
from flatmin.models import ReportMLP
from flatmin.record.progress import progress
from flatmin.record.store import once
from flatmin.symmetry import Scalings, find_scalings

TRAIN, LOSS, ERROR, GAP = "training loss", "test loss", "test error", "generalization gap"
SIZE, SHARE, MOVED = "norm of the weights", "share of one class", "outputs moved by"
COPY = "copy: "
TOGETHER = 96  # networks that are measured at once: what they need stays in the cache


def scored(config: Config, scratch: Path) -> dict[str, Tensor]:
    """Train all networks, and score each and its rescaled copy.

    Returns:
        Names of scores, "measure | geometry", and the same of the copy, each to a tensor of the
        shape of the grid.
    """
    parts = [(e, b, kind) for e in config.epochs for b in config.batches for kind in KINDS]
    found: dict[tuple[int, int, str], dict[str, list[float]]] = {}
    for part in progress(parts, "ext_prediction: networks"):
        file = scratch / f"{'-'.join(map(str, part))}.json"
        found[part] = once(file, partial(_of_part, config, *part))

    def whole(name: str) -> Tensor:
        rows = [
            torch.cat([_grid_of(found[e, b, kind][name], config) for kind in KINDS])
            for e in config.epochs
            for b in config.batches
        ]
        return torch.stack(rows).reshape(config.shape)

    return {name: whole(name) for name in found[parts[0]]}


def _grid_of(values: list[float], config: Config) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, *config.shape[3:])


def _of_part(config: Config, epochs: int, batch: int, kind: str) -> dict[str, list[float]]:
    """All scores of the networks that are trained together, one after the other."""
    networks = train_part(config, kind, epochs, batch)
    factors = stream("prediction: factors", kind, epochs, batch)
    starts = range(0, len(networks.train[0]), TOGETHER)
    pieces = [_of_piece(config, networks, slice(s, s + TOGETHER), factors) for s in starts]
    return {name: torch.cat([p[name] for p in pieces]).tolist() for name in pieces[0]}


def _of_piece(
    config: Config, networks: Networks, piece: slice, factors: torch.Generator
) -> dict[str, Tensor]:
    params = {n: p[piece] for n, p in networks.params.items()}
    x, y = (t[piece] for t in networks.train)
    outside, labels = (t[piece] for t in networks.test)
    effort = Effort(
        {IDENTITY: config.sam_radius, PUBLISHED: config.radius, INVARIANT: config.radius},
        config.steps,
        config.samples,
        config.products,
    )
    copies = rescaled(params, config.scalings, factors)
    (loss, _), (test, error) = scores(params, x, y), scores(params, outside, labels)
    logits = ensemble_outputs(ReportMLP(), params, outside)
    moved = ensemble_outputs(ReportMLP(), copies, outside)
    ones = (logits[..., 1] > logits[..., 0]).double().mean(dim=1)
    return {
        TRAIN: loss,
        LOSS: test,
        ERROR: error,
        GAP: test - loss,
        SIZE: torch.cat([p.flatten(1) for p in params.values()], dim=1).norm(dim=1),
        SHARE: torch.maximum(ones, 1 - ones),
        MOVED: (moved - logits).abs().flatten(1).amax(dim=1),
        **_measured(params, x, y, effort, ""),
        **_measured(copies, x, y, effort, COPY),
    }


def _measured(
    params: dict[str, Tensor], inputs: Tensor, targets: Tensor, effort: Effort, before: str
) -> dict[str, Tensor]:
    found = measure(Landscape(ReportMLP(), params, inputs, targets), effort)
    return {
        f"{before}{name} | {scale}": values
        for name, row in found.items()
        for scale, values in row.items()
    }


def rescaled(params: Params, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A copy of each network after ``count`` scalings of its units, each network by its own."""
    copies = []
    for member in range(len(next(iter(params.values())))):
        draws = [_scalings().sample(generator) for _ in range(count)]
        factors = [torch.stack(of_group).prod(dim=0) for of_group in zip(*draws, strict=True)]
        copies.append(_scalings().apply({n: p[member] for n, p in params.items()}, factors))
    return {name: torch.stack([copy[name] for copy in copies]) for name in params}


@cache
def _scalings() -> Scalings:
    """Those of the report's network, whatever its weights."""
    return find_scalings(ReportMLP().double(), torch.zeros(1, 2, dtype=torch.float64))
