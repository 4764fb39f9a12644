"""Every measure of sharpness in every geometry, for many small networks at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin._streams import stream
from flatmin._types import Params
from flatmin.ball import Ball
from flatmin.experiments.toy._landscape import Landscape
from flatmin.scale import Elementwise, Identity, Scale

IDENTITY, PUBLISHED, INVARIANT = "T = 1", "published ASAM", "T = |w|"
SCALES: dict[str, Scale] = {
    IDENTITY: Identity(),
    PUBLISHED: Elementwise(0.01, biases=False),
    INVARIANT: Elementwise(0.0, biases=True),
}
ONE_STEP, WORST, BOX_STEP, BOX, AVERAGE, NORM, TRACE, TOP = MEASURES = (
    "one step, p = 2",
    "worst case, p = 2",
    "one step, p = ∞",
    "worst case, p = ∞",
    "average",
    "gradient norm",
    "trace",
    "top eigenvalue",
)


@dataclass(frozen=True, slots=True)
class Effort:
    """How far and how long is looked: the box is a tenth as wide, the average ten times.

    Attributes:
        radius: Of the Euclidean ball that is climbed in, by geometry.
        steps: Trial points of a climb.
        samples: Random points of an average, the same for all networks.
        products: Products with the Hessian for an eigenvalue.
    """

    radius: dict[str, float]
    steps: int
    samples: int
    products: int


def measure(land: Landscape, effort: Effort) -> dict[str, dict[str, Tensor]]:
    """Each measure in each geometry, ``[members]``."""
    base, grads = land.losses(land.params), land.grads(land.params)
    found: dict[str, dict[str, Tensor]] = {name: {} for name in MEASURES}
    for name, scale in SCALES.items():
        radius = effort.radius[name]
        ball, box, room = (
            _ball(land, radius * wide, p, scale) for wide, p in ((1, 2.0), (0.1, math.inf), (10, 2))
        )
        for neighborhood, first, worst in ((ball, ONE_STEP, WORST), (box, BOX_STEP, BOX)):
            found[first][name], found[worst][name] = climb(
                land, neighborhood, base, grads, effort.steps
            )
        found[AVERAGE][name] = average(land, room, base, effort.samples)
        found[NORM][name] = _ball(land, 1.0, 2.0, scale).support(land.params, grads)
        found[TRACE][name] = land.trace(scale)
        found[TOP][name] = land.top_eigenvalue(scale, effort.products, stream("top eigenvalue"))
    return found


def climb(
    land: Landscape, ball: Ball, base: Tensor, grads: Params, steps: int
) -> tuple[Tensor, Tensor]:
    """The rise of one step, and the largest of a climb: ``worst_case_sharpness`` side by side."""
    shift = {name: torch.zeros_like(p) for name, p in land.params.items()}
    best, reach, first = base, torch.ones_like(base), None
    for _ in range(steps):
        target = ball.shift(land.params, grads)
        trial = tree.add(tree.scale(shift, 1.0 - reach), target, alpha=reach)
        value = land.losses(tree.add(land.params, trial))
        first = value - base if first is None else first
        higher = value > best
        shift = {n: torch.where(_wide(higher, s), trial[n], s) for n, s in shift.items()}
        best = torch.where(higher, value, best)
        reach = torch.where(higher, (2.0 * reach).clamp(max=1.0), reach / 2.0)
        grads = land.grads(tree.add(land.params, shift))
    assert first is not None
    return first, best - base


def average(land: Landscape, ball: Ball, base: Tensor, samples: int) -> Tensor:
    """Mean rise over points of a ball; all members go in the same directions."""
    one = {name: p[:1] for name, p in land.params.items()}
    generator, total = stream("average"), torch.zeros_like(base)
    for _ in range(samples):
        u = Ball(torch.ones_like(base[:1])).sample(one, generator)
        wide = {name: t.expand_as(land.params[name]) for name, t in u.items()}
        shift = tree.scale(ball.stretch(land.params, wide), ball.rho)
        total += land.losses(tree.add(land.params, shift)) - base
    return total / samples


def _ball(land: Landscape, radius: float, p: float, scale: Scale) -> Ball:
    like = next(iter(land.params.values()))
    return Ball(like.new_full((land.members,), radius), p, scale)


def _wide(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(-1, *[1] * (like.ndim - 1))
