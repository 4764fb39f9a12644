"""Trained networks, their rescaled copies, and what measures of sharpness make of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin._streams import seed_for, stream
from flatmin._types import Params
from flatmin.ball import Ball
from flatmin.data import Batches, figure8, load_digits
from flatmin.models import ReportMLP, WideResNet
from flatmin.objective import EmpiricalLoss, Objective
from flatmin.scale import Elementwise, Filterwise
from flatmin.sharpness import (
    average_sharpness,
    gradient_norm,
    hessian_trace,
    one_step_sharpness,
    top_eigenvalues,
    worst_case_sharpness,
)
from flatmin.symmetry import find_scalings, rescale
from flatmin.symmetry.evaluate import deviation, outputs_at, state_of

INVARIANT = Elementwise(eta=0.0, biases=True)
PUBLISHED = Elementwise(eta=0.01, biases=False)
NORMS = (1.0, 1.5, 2.0, 3.0, math.inf)


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of a network, and the spread that rounding may give it.

    Attributes:
        of: Takes an objective and a point.
        double: Largest spread in float64; infinite for what is not invariant.
        single: The same in float32.
    """

    of: Callable[[Objective, Params], float]
    double: float = math.inf
    single: float = math.inf


def invariant_measures(
    rho: float, *, steps: int, samples: int, tolerance: float = 1e-7
) -> dict[str, Measure]:
    """The measures in the geometry of T = |w|, biases included.

    Args:
        rho: Radius of the balls to climb in, dimensionless; beyond p = 2 it falls, to a tenth of it
            for the box, in which all parameters move at once. Random points need more room,
            √d / 10: then each of d parameters moves by about a tenth.
        steps: Trial points of a climb.
        samples: Random points of the ball, or random vectors of a trace.
        tolerance: Of the eigenvalue.
    """
    balls = {
        f"p = {p:g}".replace("inf", "∞"): Ball(rho * min(1.0, 10 ** (2 / p - 1)), p, INVARIANT)
        for p in NORMS
    }

    def one_step(ball: Ball) -> Measure:
        # At p = ∞ the step is made of signs, which rounding does not move.
        bounds = (1e-12, 1e-4) if math.isinf(ball.p) else (1e-9, 1e-2)
        return Measure(lambda o, w: one_step_sharpness(o, w, ball).value, *bounds)

    def worst_case(ball: Ball) -> Measure:
        # A step follows the power 1 / (p − 1) of the gradient, which for p < 2 multiplies relative
        # errors, and the next one begins there.
        grown = (1.0 / (ball.p - 1.0)) ** steps if 1.0 < ball.p < 2.0 else 1.0
        return Measure(
            lambda o, w: worst_case_sharpness(o, w, ball, steps=steps).value,
            grown * 1e-12,
            grown * 1e-4,
        )

    return {
        **{f"one step, {p}": one_step(ball) for p, ball in balls.items()},
        **{f"worst case, {p}": worst_case(ball) for p, ball in balls.items()},
        "average": Measure(
            lambda o, w: average_sharpness(o, w, _roomy(w), samples=samples).value, 1e-12, 1e-4
        ),
        "gradient norm": Measure(lambda o, w: gradient_norm(o, w).value, 1e-9, 1e-3),
        "trace": Measure(lambda o, w: hessian_trace(o, w, samples=samples).value, 1e-12, 1e-4),
        "top eigenvalue": Measure(
            lambda o, w: top_eigenvalues(o, w, tolerance=tolerance).value, 1e-9, 1e-4
        ),
    }


def _roomy(params: Params) -> Ball:
    dimension = sum(t.numel() for t in params.values())
    return Ball(math.sqrt(dimension) / 10, scale=INVARIANT)


def fooled_measures(rho: float, sam_rho: float) -> dict[str, Measure]:
    """The plotted losses of SAM and of ASAM as published, their rises, and the filter-wise rise.

    Args:
        rho: Radius of the filter-wise ball, dimensionless.
        sam_rho: Radius for SAM, in parameter units, and for published ASAM.
    """
    sam, asam = Ball(sam_rho), Ball(sam_rho, scale=PUBLISHED)
    filters = Ball(rho, scale=Filterwise())
    return {
        "SAM loss": Measure(lambda o, w: one_step_sharpness(o, w, sam).worst_loss),
        "SAM rise": Measure(lambda o, w: one_step_sharpness(o, w, sam).value),
        "published ASAM loss": Measure(lambda o, w: one_step_sharpness(o, w, asam).worst_loss),
        "published ASAM rise": Measure(lambda o, w: one_step_sharpness(o, w, asam).value),
        "filter-wise rise": Measure(lambda o, w: one_step_sharpness(o, w, filters).value),
    }


def toy_network(
    seed: int, *, steps: int, points: int, variance: float, dtype: torch.dtype
) -> EmpiricalLoss:
    """Train the report's network, with biases, on figure 8; give the loss on what it has learnt.

    Args:
        seed: Fixes start and points, whatever the dtype: training is in float64.
        steps: Steps of Adam at rate 0.01, each on all points.
        points: Number of points, divisible by 4.
        variance: Their variance.
        dtype: In which the trained network is measured.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("rescaled copies: start", seed))
        model: nn.Module = ReportMLP().double()
    source = stream("rescaled copies: points", seed)
    inputs, targets = figure8(points, variance, generator=source, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.to(dtype).zero_grad()
    return EmpiricalLoss(model, F.cross_entropy, [(inputs.to(dtype), targets)])


def wide_network(seed: int, *, epochs: int, examples: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Train WRN-10-1 on the digits, in float64; give it in eval mode, with images to measure on.

    Args:
        seed: Fixes start and batches.
        epochs: Passes over the 1,437 training images, with SGD, momentum and a cosine schedule.
        examples: Training images that are given back, with their labels.
    """
    train_set, _ = load_digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("rescaled copies: wide start", seed))
        model = WideResNet(depth=10, width=1, in_channels=1)
    generator = stream("rescaled copies: batches", seed)
    batches = Batches(train_set, 128, generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for images, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    chosen = torch.randperm(len(train_set), generator=generator)[:examples]
    ordered = Batches(train_set.subset(chosen), examples, shuffle=False, dtype=torch.float64)
    images, labels = next(iter(ordered))
    model.double().eval().zero_grad()
    return model, images, labels


def rescaled(objective: EmpiricalLoss, count: int, *orbit: int) -> Iterator[dict[str, Tensor]]:
    """A network's own parameters, and those after each of ``count`` scalings by U[0.5, 1.5].

    Args:
        objective: The loss on the network.
        count: Scalings.
        *orbit: Seed of the network, and the number of the orbit where it has several.
    """
    inputs, _ = next(iter(objective.batches))
    scalings = find_scalings(objective.model, inputs)
    generator = stream("rescaled copies: factors", *orbit)
    state = objective.params
    yield state
    for _ in range(count):
        state = scalings.apply(state, scalings.sample(generator))
        yield state


def orbit_with_buffers(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    measures: dict[str, Measure],
    *,
    count: int,
    seed: int,
) -> tuple[dict[str, list[float]], float]:
    """The same for a network whose running statistics are rescaled too, in its present mode.

    Args:
        model: The network. Not changed.
        images: What it is measured on, [n, C, H, W].
        labels: Their classes, [n].
        measures: What is measured.
        count: Scalings.
        seed: Of the factors.

    Returns:
        Values of each measure, and by how much the outputs moved at most, relative to their rms.
    """
    copy = deepcopy(model)
    scalings = find_scalings(copy, images)
    generator = stream("rescaled copies: wide factors", seed)
    before = outputs_at(copy, state_of(copy), images)
    values: dict[str, list[float]] = {name: [] for name in measures}
    moved = 0.0
    for step in range(count + 1):
        if step:
            rescale(copy, scalings, scalings.sample(generator))
            moved = max(moved, deviation(before, outputs_at(copy, state_of(copy), images)))
        objective = EmpiricalLoss(copy, F.cross_entropy, [(images, labels)])
        for name, measure in measures.items():
            values[name].append(measure.of(objective, objective.params))
    return values, moved


def spread_of(values: Sequence[float]) -> float:
    """(max − min) / |mean|."""
    return (max(values) - min(values)) / abs(math.fsum(values) / len(values))


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's τ-b: 1 where two lists rank alike, −1 where oppositely, about 0 by chance.

    Source:
        Kendall 1945, doi:10.1093/biomet/33.3.239.
    """
    pairs = list(combinations(zip(first, second, strict=True), 2))
    signs = [((a > c) - (a < c), (b > d) - (b < d)) for (a, b), (c, d) in pairs]
    untied = [sum(sign[side] != 0 for sign in signs) for side in (0, 1)]
    return sum(x * y for x, y in signs) / math.sqrt(untied[0] * untied[1] or 1)
