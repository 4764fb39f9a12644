"""Gradient norm, trace, eigenvalues and spectrum against the dense T H T of a whole network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Counting, Trained, trained
from torch import Tensor
from torch.func import functional_call, hessian

from flatmin import Elementwise, Filterwise, FunctionObjective, Identity
from flatmin.scale import Scale
from flatmin.sharpness import (
    Measurement,
    gradient_norm,
    hessian_trace,
    spectral_density,
    top_eigenvalues,
)
from slowly import slow_but

# torch.func.hessian, the oracle, still passes through torch.jit when it is first used.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

SCALES = {"identity": Identity(), "elementwise": Elementwise(), "filter": Filterwise()}


def flat(w: Mapping[str, Tensor]) -> Tensor:
    """Join all numbers into one vector."""
    return torch.cat([t.flatten() for t in w.values()])


def dense(net: Trained, scale: Scale) -> Tensor:
    """All of T H T, by torch.func.hessian of a function of one flat vector."""
    w = net.loss.params
    sizes = [t.numel() for t in w.values()]

    def loss(numbers: Tensor) -> Tensor:
        pieces = torch.split(numbers, sizes)
        params = {n: piece.reshape(w[n].shape) for n, piece in zip(w, pieces, strict=True)}
        return F.cross_entropy(functional_call(net.model, params, (net.data[0],)), net.data[1])

    bend = hessian(loss)(flat(w))
    factors = scale(w)
    diagonal = [
        factors.get(n, torch.ones(())).to(t).expand(t.shape).flatten() for n, t in w.items()
    ]
    t = torch.cat(diagonal)
    return t[:, None] * bend * t


@pytest.fixture(scope="module")
def net() -> Trained:
    return trained(0)


@pytest.fixture(scope="module", params=slow_but(SCALES, "elementwise"))
def scaled(request: pytest.FixtureRequest, net: Trained) -> tuple[Scale, Tensor]:
    scale = SCALES[request.param]
    return scale, dense(net, scale)


def test_top_eigenvalues(net: Trained, scaled: tuple[Scale, Tensor]) -> None:
    scale, matrix = scaled
    exact = torch.linalg.eigvalsh(matrix).flip(0)
    found = top_eigenvalues(net.loss, net.loss.params, scale=scale, k=3)
    assert found.value == found.values[0] == pytest.approx(exact[0].item(), rel=1e-6)
    assert found.values == pytest.approx(exact[:3].tolist(), rel=1e-6)
    for value, residual in zip(found.values, found.residuals, strict=True):
        assert (exact - value).abs().min() <= residual + 1e-12 * exact[0]
    assert found.warnings == ()
    assert found.hvps < 100


@pytest.mark.slow
def test_density_has_mass_one_and_the_moments(net: Trained, scaled: tuple[Scale, Tensor]) -> None:
    scale, matrix = scaled
    found = spectral_density(net.loss, net.loss.params, scale=scale, samples=6, steps=15)
    nodes, weights = np.array(found.nodes), np.array(found.weights)
    assert abs(weights.sum() - 1.0) <= 1e-10
    assert found.dimension == len(matrix)
    assert abs(found.value - matrix.trace().item()) <= 3 * found.standard_error
    assert found.value == pytest.approx(found.dimension * (nodes @ weights), rel=1e-12)
    grid = np.linspace(nodes.min() - 3, nodes.max() + 3, 20001)
    assert np.trapezoid(found.density(grid, width=0.3), grid) == pytest.approx(1.0, abs=1e-10)


def test_density_of_all_steps_is_the_spectrum_of_the_probe(net: Trained) -> None:
    """The fourth moment, which 15 nodes integrate exactly, probe by probe."""
    matrix = dense(net, Elementwise())
    random = torch.Generator().manual_seed(0)
    found = spectral_density(net.loss, net.loss.params, samples=2, steps=15, generator=random)
    random.manual_seed(0)
    moments = []
    for _ in range(2):
        signs = [
            torch.empty_like(t).bernoulli_(0.5, generator=random).flatten() * 2 - 1
            for t in net.loss.params.values()
        ]
        z = torch.cat(signs)
        moments.append((z @ matrix @ matrix @ matrix @ matrix @ z).item() / len(z))
    fourth = np.array(found.nodes) ** 4 @ np.array(found.weights)
    assert fourth == pytest.approx(sum(moments) / 2, rel=1e-9)


class Parabola:
    """x·A·x / 2, as an objective of which only the curvature is asked."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def hvp(self, params: Mapping[str, Tensor], vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"x": self.matrix @ vector["x"]}


@pytest.mark.slow
def test_trace_is_within_three_standard_errors(net: Trained) -> None:
    """The network's own, and in at least 95 of 100 seeds that of a parabola with its T H T."""
    matrix = dense(net, Elementwise())
    exact = matrix.trace().item()
    found = hessian_trace(net.loss, net.loss.params)
    assert abs(found.value - exact) <= 3 * found.standard_error
    inside = 0
    for seed in range(100):
        found = hessian_trace(
            Parabola(matrix),
            {"x": torch.zeros(len(matrix), dtype=torch.float64)},
            scale=Identity(),
            generator=torch.Generator().manual_seed(seed),
        )
        inside += abs(found.value - exact) <= 3 * found.standard_error
    assert inside >= 95


def test_trace_of_a_diagonal_is_exact_from_the_first_probe() -> None:
    bowl = FunctionObjective(lambda w: (torch.arange(5.0) * w["x"].square()).sum() / 2)
    found = hessian_trace(bowl, {"x": torch.ones(5)}, samples=2)
    assert (found.value, found.standard_error) == (10.0, 0.0)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
def test_gradient_norm_is_the_dual_norm(net: Trained, p: float) -> None:
    w = net.loss.params
    _, grad = net.loss.value_and_grad(w)
    v = torch.cat([(w[n].abs() * grad[n]).flatten() for n in w])
    q = math.inf if p == 1 else 1.0 if math.isinf(p) else p / (p - 1)
    found = gradient_norm(net.loss, w, p=p)
    assert found.value == pytest.approx(torch.linalg.vector_norm(v, q).item(), rel=1e-12)


def test_eigenvalues_of_a_matrix_of_few_values() -> None:
    """A start vector meets each eigenspace once; fresh vectors find the copies."""
    bowl = FunctionObjective(lambda w: (torch.tensor([3.0, 3.0, 1.0, 0.0]) * w["x"] ** 2).sum() / 2)
    w = {"x": torch.ones(4, dtype=torch.float64)}
    found = top_eigenvalues(bowl, w, k=4)
    assert found.values == pytest.approx((3.0, 3.0, 1.0, 0.0), abs=1e-9)


def test_a_negative_spectrum_has_a_negative_top() -> None:
    hill = FunctionObjective(lambda w: -(torch.tensor([3.0, 1.0]) * w["x"] ** 2).sum() / 2)
    assert top_eigenvalues(hill, {"x": torch.ones(2)}).value == pytest.approx(-1.0, rel=1e-6)


def test_too_few_steps_are_told(net: Trained) -> None:
    found = top_eigenvalues(net.loss, net.loss.params, steps=3)
    assert "after 3 steps; use more" in found.warnings[0]


def test_cost(net: Trained) -> None:
    w = net.loss.params
    for measure, options, expected in (
        (gradient_norm, {}, (1, 0, 0)),
        (hessian_trace, {"samples": 6}, (0, 0, 6)),
        (spectral_density, {"samples": 3, "steps": 4}, (0, 0, 12)),
        (top_eigenvalues, {"steps": 5}, (0, 0, 5)),
    ):
        counting = Counting(net.loss)
        found = measure(counting, w, **options)
        assert (counting.gradients, counting.forwards, counting.hvps) == expected
        assert (found.gradients, found.forwards, found.hvps) == expected


@pytest.mark.parametrize(("k", "message"), [(0, "at least 1"), (5, "at most the number")])
def test_k_is_checked(k: int, message: str) -> None:
    bowl = FunctionObjective(lambda w: w["x"].square().sum())
    with pytest.raises(ValueError, match=f"k must be {message}"):
        top_eigenvalues(bowl, {"x": torch.ones(4)}, k=k)


@pytest.mark.parametrize("measure", [hessian_trace, top_eigenvalues, spectral_density])
def test_a_curvature_that_is_not_finite_is_refused(measure: object) -> None:
    kink = FunctionObjective(lambda w: w["x"].abs().pow(1.5).sum())
    w = {"x": torch.zeros(2)}
    with pytest.raises(ValueError, match="curvature at params must be finite"):
        measure(kink, w, scale=Identity())  # type: ignore[operator]


class Unlike(torch.autograd.Function):
    """x² with a backward pass that is no derivative: it mixes the coordinates."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * (x + 0.1 * x.roll(1)) * grad


@pytest.mark.parametrize(
    "measure", [partial(hessian_trace, samples=4), top_eigenvalues, partial(spectral_density)]
)
def test_a_backward_pass_that_is_no_derivative_is_told(measure: Callable[..., Measurement]) -> None:
    w = {"x": torch.linspace(1.0, 2.0, 5, dtype=torch.float64)}
    for function, told in ((torch.square, False), (Unlike.apply, True)):
        loss = FunctionObjective(lambda p, f=function: f(p["x"]).pow(2).sum())
        found = measure(loss, w)
        assert any("not symmetric" in sentence for sentence in found.warnings) == told
