"""Rescaling a network cannot fool a measure whose scale is elementwise, and it fools the others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from networks import Counting, Trained, orbit, spread, trained
from scipy.stats import kendalltau
from torch import Tensor, nn

from flatmin import Ball, Elementwise, EmpiricalLoss, Filterwise, Objective
from flatmin.models import WideResNet
from flatmin.sharpness import (
    average_sharpness,
    gradient_norm,
    hessian_trace,
    m_sharpness,
    one_step_sharpness,
    per_layer,
    spectral_density,
    top_eigenvalues,
    worst_case_sharpness,
)
from flatmin.symmetry import find_scalings, rescale
from slowly import slow_but

State = dict[str, Tensor]
EXACT = Elementwise(eta=0.0, biases=True)
PUBLISHED = Ball(0.5, scale=Elementwise(eta=0.01, biases=False))


class Case(NamedTuple):
    """A measure, and the spread it may have over 50 rescalings in float64 and in float32."""

    measure: Callable[[Objective, State], float]
    double: float
    single: float


def per_layer_sum(objective: Objective, w: State) -> float:
    """Sum of the layers' sharpnesses."""
    found = per_layer(one_step_sharpness, objective, w, Ball(0.2, scale=EXACT))
    return sum(sharpness.value for sharpness in found.values())


CASES = {
    "one step, p=2": Case(
        lambda o, w: one_step_sharpness(o, w, Ball(0.2, scale=EXACT)).value, 1e-9, 1e-2
    ),
    "one step, p=1.5": Case(
        lambda o, w: one_step_sharpness(o, w, Ball(0.2, 1.5, EXACT)).value, 1e-9, 1e-2
    ),
    "one step, p=∞": Case(
        lambda o, w: one_step_sharpness(o, w, Ball(0.02, math.inf, EXACT)).value, 1e-12, 1e-4
    ),
    "worst case, p=2": Case(
        lambda o, w: worst_case_sharpness(o, w, Ball(0.2, scale=EXACT)).value, 1e-12, 1e-4
    ),
    "worst case, p=3": Case(
        lambda o, w: worst_case_sharpness(o, w, Ball(0.1, 3.0, EXACT), steps=5, restarts=1).value,
        1e-12,
        1e-4,
    ),
    "worst case, p=∞": Case(
        lambda o, w: worst_case_sharpness(o, w, Ball(0.02, math.inf, EXACT)).value, 1e-12, 1e-4
    ),
    "m-sharpness": Case(
        lambda o, w: m_sharpness(o, w, Ball(0.2, scale=EXACT), m=50).value, 1e-9, 1e-2
    ),
    "average": Case(
        lambda o, w: average_sharpness(o, w, Ball(2.0, scale=EXACT), samples=10).value, 1e-12, 1e-4
    ),
    "gradient norm": Case(lambda o, w: gradient_norm(o, w).value, 1e-9, 1e-3),
    "trace": Case(lambda o, w: hessian_trace(o, w, samples=5).value, 1e-12, 1e-4),
    "second eigenvalue": Case(lambda o, w: top_eigenvalues(o, w, k=2).values[1], 1e-9, 1e-4),
    "spectral density": Case(
        lambda o, w: float(spectral_density(o, w, samples=2, steps=8).density(1.0, width=1.0)),
        1e-9,
        1e-4,
    ),
    "layer by layer": Case(per_layer_sum, 1e-9, 1e-2),
}


DTYPES = (torch.float64, torch.float32)


QUICK = ("one step, p=2", "worst case, p=∞", "m-sharpness", "average", "gradient norm", "trace")


@cache
def orbits(dtype: torch.dtype) -> list[tuple[Trained, list[State]]]:
    """Three networks, each with its 50 cumulative rescalings of weights and biases."""
    nets = [trained(seed, dtype=dtype) for seed in range(3)]
    return [(net, list(orbit(net, 50, seed=seed))) for seed, net in enumerate(nets)]


@pytest.mark.parametrize("dtype", slow_but(DTYPES, torch.float64), ids=["double", "single"])
@pytest.mark.parametrize("name", slow_but(CASES, *QUICK))
def test_invariant(name: str, dtype: torch.dtype) -> None:
    """The network itself, the 25th rescaling and the 50th."""
    case = CASES[name]
    for net, states in orbits(dtype):
        values = [case.measure(net.loss, w) for w in states[::25]]
        assert min(values) > 0.0
        assert spread(values) <= (case.double if dtype == torch.float64 else case.single)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dtype", DTYPES, ids=["double", "single"])
@pytest.mark.parametrize("name", CASES)
def test_invariant_over_eight_networks_and_all_50_scalings(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    found = []
    for seed in range(8):
        net = trained(seed, dtype=dtype)
        found.append(spread([case.measure(net.loss, w) for w in orbit(net, 50, seed=seed)]))
    print(f"{name}, {dtype}: largest spread {max(found):.1e}")
    assert max(found) <= (case.double if dtype == torch.float64 else case.single)


def test_negatives_change_on_the_same_orbit() -> None:
    """Else the rescalings would be too weak to prove anything."""
    sam, asam, filterwise = [], [], []
    for net, states in orbits(torch.float64):
        for ball, ratios in ((Ball(0.5), sam), (PUBLISHED, asam)):
            losses = [one_step_sharpness(net.loss, w, ball).worst_loss for w in states[::2]]
            ratios.append(max(losses) / min(losses))
        ball = Ball(0.2, scale=Filterwise())
        rises = [one_step_sharpness(net.loss, w, ball).value for w in states[::5]]
        filterwise.append(spread(rises))
    assert statistics.median(sam) >= 50
    assert statistics.median(asam) >= 5
    assert min(filterwise) >= 1


RANKED = {
    "one step": lambda o, w: one_step_sharpness(o, w, Ball(0.2, scale=EXACT)).value,
    "gradient norm": lambda o, w: gradient_norm(o, w).value,
    "worst case": lambda o, w: worst_case_sharpness(o, w, Ball(0.2, scale=EXACT)).value,
    "average": lambda o, w: average_sharpness(o, w, Ball(2.0, scale=EXACT), samples=10).value,
    "trace": lambda o, w: hessian_trace(o, w, samples=5).value,
    "eigenvalue": lambda o, w: top_eigenvalues(o, w).value,
    "density": lambda o, w: spectral_density(o, w, samples=2, steps=10).value,
}
FOOLED = {
    "SAM": lambda o, w: one_step_sharpness(o, w, Ball(0.5)).value,
    "published ASAM": lambda o, w: one_step_sharpness(o, w, PUBLISHED).value,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [["one step", "gradient norm", *FOOLED], [*RANKED, *FOOLED]],
    ids=["some", "all"],
)
def test_rescaled_copies_rank_alike(names: list[str]) -> None:
    """Kendall's τ between 24 networks and rescaled copies of them."""
    before: dict[str, list[float]] = {name: [] for name in names}
    after: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(24):
        net = trained(seed, steps=40)
        *_, copy = orbit(net, 50, seed=1000 + seed)
        for name in names:
            measure = (RANKED | FOOLED)[name]
            before[name].append(measure(net.loss, net.loss.params))
            after[name].append(measure(net.loss, copy))
    for name in names:
        tau = kendalltau(before[name], after[name]).statistic
        print(f"{name}: Kendall's tau {tau:.3f}")
        if name in FOOLED:
            assert abs(tau) <= 0.3
        else:
            assert tau == 1.0


def wide_resnet() -> tuple[nn.Module, Tensor, Tensor]:
    """Make a network whose batch normalization has next to no eps, which breaks the symmetry."""
    model = WideResNet(depth=10, width=1, num_classes=4).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-300  # torch asks for more than zero; no sum notices this
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.1)
    inputs = torch.randn(16, 3, 8, 8, dtype=torch.float64)
    return model, inputs, torch.randint(4, (16,))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["batch statistics", "running statistics"])
def test_wide_resnet(mode: str) -> None:
    """In eval mode the running statistics are rescaled too, by `rescale`."""
    model, inputs, labels = wide_resnet()
    model(inputs)
    model.train(mode == "batch statistics")
    scalings = find_scalings(model, inputs[:2])
    assert scalings.groups
    generator = torch.Generator().manual_seed(0)
    exact, plain = [], []
    for _ in range(4):
        loss = EmpiricalLoss(model, F.cross_entropy, [(inputs, labels)])
        exact.append(
            (
                one_step_sharpness(loss, loss.params, Ball(0.1, scale=EXACT)).value,
                worst_case_sharpness(loss, loss.params, Ball(0.1, scale=EXACT), steps=3).value,
                gradient_norm(loss, loss.params).value,
                hessian_trace(loss, loss.params, samples=2).value,
            )
        )
        plain.append(one_step_sharpness(loss, loss.params, Ball(0.05)).value)
        rescale(model, scalings, scalings.sample(generator))
    for values in zip(*exact, strict=True):
        assert spread(list(values)) <= 1e-9
    assert spread(plain) >= 0.1


def test_counting_objective_is_an_objective() -> None:
    """The instrument does not change what it measures."""
    net, (w, *_) = orbits(torch.float64)[0]
    assert gradient_norm(Counting(net.loss), w) == gradient_norm(net.loss, w)
