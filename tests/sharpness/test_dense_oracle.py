"""Every measure against all of the Hessian, or all of the points, of networks of many kinds.

The oracle is a loss of one flat vector and what torch.autograd.functional makes of it; nothing of
the package is in it but what draws the same random numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from small_networks import Attention, Small, made
from torch import Tensor, nn
from torch.autograd.functional import hessian, jacobian
from torch.nn.attention import SDPBackend, sdpa_kernel

from flatmin import Ball, Elementwise, EmpiricalLoss, Filterwise, GaussNewton, Identity
from flatmin._streams import stream
from flatmin.scale import Scale
from flatmin.sharpness import (
    average_sharpness,
    critical_sharpness,
    gradient_norm,
    hessian_trace,
    m_sharpness,
    one_step_sharpness,
    per_layer,
    spectral_density,
    top_eigenvalues,
    worst_case_sharpness,
)
from flatmin.sharpness._operator import signs
from slowly import slow_but

EXACT = 2e-12
NETWORKS = made()
SCALES = {"identity": Identity(), "elementwise": Elementwise(), "filterwise": Filterwise()}
ORDERS = (1.0, 1.5, 2.0, math.inf)


def weight_norm(v: Tensor, g: Tensor, dim: int) -> Tensor:
    """By hand, for torch's own has a second derivative that is no symmetric matrix."""
    assert dim == 0
    return g * v / v.square().sum(1, keepdim=True).sqrt()


@dataclass(frozen=True)
class Oracle:
    """A loss as a function of one vector, with its derivatives in full."""

    small: Small

    @cached_property
    def loss(self) -> EmpiricalLoss:
        """What is tested."""
        return EmpiricalLoss(self.small.model, self.small.loss, self.small.batches)

    @cached_property
    def w(self) -> Tensor:
        """The point."""
        return torch.cat([p.detach().flatten() for p in self.small.model.parameters()])

    def parts(self, numbers: Tensor) -> dict[str, Tensor]:
        """A vector cut into parameters."""
        named = dict(self.small.model.named_parameters())
        pieces = torch.split(numbers, [p.numel() for p in named.values()])
        return {n: x.reshape(p.shape) for (n, p), x in zip(named.items(), pieces, strict=True)}

    @cached_property
    def shell(self) -> nn.Module:
        """A copy of the network without parameters."""
        model = copy.deepcopy(self.small.model)
        for name in self.parts(self.w):
            path, _, last = name.rpartition(".")
            delattr(model.get_submodule(path), last)
        return model

    def at(self, numbers: Tensor) -> nn.Module:
        """The network at a vector; functional_call leaves recurrent layers where they were."""
        for name, t in self.parts(numbers).items():
            path, _, last = name.rpartition(".")
            setattr(self.shell.get_submodule(path), last, t)
        return self.shell

    def value(self, numbers: Tensor, *, rows: slice | None = None) -> Tensor:
        """Mean loss over all examples, or over rows of the first batch."""
        total, count = torch.zeros((), dtype=torch.float64), 0
        for inputs, targets in self.small.batches:
            args = inputs if isinstance(inputs, tuple) else (inputs,)
            if rows is not None:
                args, targets = tuple(x[rows] for x in args), targets[rows]
            with patch.object(torch, "_weight_norm", weight_norm):
                outputs = self.at(numbers)(*args)
            total = total + self.small.loss(outputs, targets) * len(targets)
            count += len(targets)
            if rows is not None:
                break
        return total / count

    @cached_property
    def grad(self) -> Tensor:
        """The gradient."""
        return self.slope(self.value)

    def slope(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient of a function of the vector."""
        leaf = self.w.clone().requires_grad_()
        return torch.autograd.grad(function(leaf), leaf)[0]

    @cached_property
    def bend(self) -> Tensor:
        """The Hessian."""
        with sdpa_kernel(SDPBackend.MATH):
            return hessian(self.value, self.w)  # type: ignore[no-any-return]

    @cached_property
    def gauss_newton(self) -> Tensor:
        """The Gauss–Newton matrix."""
        total, count = torch.zeros(()), 0
        for inputs, targets in self.small.batches:
            args = inputs if isinstance(inputs, tuple) else (inputs,)
            shape: list[torch.Size] = []

            def outputs(numbers: Tensor, args: Any = args, shape: Any = shape) -> Tensor:
                with patch.object(torch, "_weight_norm", weight_norm):
                    found = self.at(numbers)(*args)
                found = found["logits"] if isinstance(found, dict) else found
                shape[:] = [found.shape]
                return found.flatten()

            def loss(numbers: Tensor, targets: Any = targets, shape: Any = shape) -> Tensor:
                found = numbers.view(shape[0])
                dict_wanted = isinstance(self.small.model, Attention)
                return self.small.loss({"logits": found} if dict_wanted else found, targets)

            slope = jacobian(outputs, self.w)
            bend = hessian(loss, outputs(self.w))
            total = total + slope.T @ bend @ slope * len(targets)
            count += len(targets)
        return total / count

    def diagonal(self, scale: Scale) -> Tensor:
        """T, by the formulas of the three scales."""
        if isinstance(scale, Identity):
            return torch.ones_like(self.w)
        sizes = []
        for t in self.parts(self.w).values():
            if isinstance(scale, Filterwise) and t.ndim > 1:
                rows = t.flatten(1).square().sum(1).sqrt()
                sizes.append(rows.reshape(-1, *[1] * (t.ndim - 1)).expand(t.shape).flatten())
            else:
                sizes.append(t.abs().flatten())
        return torch.cat(sizes)

    def scaled(self, scale: Scale) -> Tensor:
        """T H T."""
        t = self.diagonal(scale)
        return t[:, None] * self.bend * t


@pytest.fixture(
    scope="module",
    params=slow_but(NETWORKS, "perceptron", "deep, relu", "convolutions", "batch norm, train"),
)
def oracle(request: pytest.FixtureRequest) -> Oracle:
    return Oracle(NETWORKS[request.param])


def worst_shift(v: Tensor, t: Tensor, rho: float, p: float) -> Tensor:
    """The maximizer of ⟨v, u⟩ over ‖u‖_p ≤ ρ, times T, by Hölder's equality."""
    if math.isinf(p):
        return t * rho * v.sign()
    if p == 1.0:
        # Equals share, as the two biases of a softmax do that differ in sign alone.
        first = torch.isclose(v.abs(), v.abs().max(), rtol=1e-14, atol=0.0)
        return t * torch.where(first, rho * v.sign() / first.sum(), 0.0)
    u = v.sign() * v.abs() ** (1 / (p - 1))
    return t * rho * u / (u.abs() ** p).sum() ** (1 / p)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_first_order(oracle: Oracle, scale: Scale) -> None:
    t = oracle.diagonal(scale)
    v = t * oracle.grad
    base = oracle.value(oracle.w).item()
    for p in ORDERS:
        q = math.inf if p == 1 else 1.0 if math.isinf(p) else p / (p - 1)
        norm = v.abs().max() if p == 1 else (v.abs() ** q).sum() ** (1 / q)
        found = gradient_norm(oracle.loss, oracle.loss.params, scale=scale, p=p)
        assert found.value == pytest.approx(norm.item(), rel=EXACT)

        rho = 0.03 if math.isinf(p) else 0.3
        after = oracle.value(oracle.w + worst_shift(v, t, rho, p)).item()
        step = one_step_sharpness(oracle.loss, oracle.loss.params, Ball(rho, p, scale))
        assert step.worst_loss == pytest.approx(after, rel=EXACT)
        assert step.value == pytest.approx(after - base, rel=EXACT, abs=EXACT * base)


@pytest.mark.parametrize("name", slow_but(["identity", "elementwise"], "elementwise"))
def test_second_order(oracle: Oracle, name: str) -> None:
    scale = SCALES[name]
    matrix = oracle.scaled(scale)
    values = torch.linalg.eigvalsh(matrix)
    largest = values.abs().max().item()
    found = top_eigenvalues(oracle.loss, oracle.loss.params, scale=scale, k=2, steps=len(values))
    exact = values.flip(0)[:2].tolist()
    assert found.values == pytest.approx(exact, rel=EXACT, abs=EXACT * largest)

    probes = [signs(oracle.loss.params, g) for g in [stream("probes")] for _ in range(3)]
    forms = [(z @ matrix @ z).item() for z in probes]
    trace = hessian_trace(
        oracle.loss, oracle.loss.params, scale=scale, samples=3, generator=stream("probes")
    )
    size = math.sqrt(len(values)) * matrix.norm().item()  # of what a sum of signs may cancel
    assert trace.value == pytest.approx(np.mean(forms), abs=EXACT * size)
    assert trace.standard_error == pytest.approx(
        np.std(forms, ddof=1) / math.sqrt(3), abs=EXACT * size
    )

    density = spectral_density(
        oracle.loss, oracle.loss.params, scale=scale, samples=3, steps=4, generator=stream("probes")
    )
    nodes, weights = np.array(density.nodes) / largest, np.array(density.weights)
    for power in range(8):  # as many as four nodes reproduce
        moment = np.mean(
            [z @ torch.linalg.matrix_power(matrix / largest, power) @ z / len(z) for z in probes]
        )
        assert weights @ nodes**power == pytest.approx(moment, abs=EXACT)


@pytest.mark.parametrize("name", ["identity", "elementwise"])
def test_gauss_newton(oracle: Oracle, name: str) -> None:
    """All of Jᵀ H J, from autograd's Jacobian of the outputs and Hessian of the loss in them."""
    t = oracle.diagonal(SCALES[name])
    matrix = t[:, None] * oracle.gauss_newton * t
    values = torch.linalg.eigvalsh(matrix).flip(0)
    loss, w = GaussNewton(oracle.loss), oracle.loss.params
    found = top_eigenvalues(loss, w, scale=SCALES[name], k=2, steps=len(values))
    assert found.values == pytest.approx(values[:2].tolist(), rel=EXACT, abs=EXACT * found.value)
    assert found.warnings == ()
    probes = [signs(w, g) for g in [stream("probes")] for _ in range(2)]
    trace = hessian_trace(loss, w, scale=SCALES[name], samples=2, generator=stream("probes"))
    forms = [(z @ matrix @ z).item() for z in probes]
    assert trace.value == pytest.approx(np.mean(forms), rel=EXACT)
    assert min(forms) >= 0  # the losses are convex in the outputs
    assert gradient_norm(loss, w) == gradient_norm(oracle.loss, w)


def test_in_the_ball(oracle: Oracle) -> None:
    """Points of the same draws; no climb finds more than the brightest of many, nor leaves."""
    ball, w = Ball(0.5, scale=Elementwise()), oracle.loss.params
    base = oracle.value(oracle.w).item()
    random = stream("points")
    rises = [
        oracle.value(
            oracle.w + torch.cat([t.flatten() for t in ball.sample(w, random).values()])
        ).item()
        - base
        for _ in range(5)
    ]
    found = average_sharpness(oracle.loss, w, ball, samples=5, generator=stream("points"))
    assert found.value == pytest.approx(np.mean(rises), abs=EXACT * base)
    assert found.standard_error == pytest.approx(np.std(rises, ddof=1) / math.sqrt(5), abs=EXACT)
    assert worst_case_sharpness(oracle.loss, w, ball, steps=5).value > max(rises)


def test_of_layers_and_of_parts(oracle: Oracle) -> None:
    w = oracle.loss.params
    pieces = oracle.parts(oracle.diagonal(Elementwise()) * oracle.grad)
    layers = {name.rpartition(".")[0] or name for name in w}
    found = per_layer(gradient_norm, oracle.loss, w)
    assert set(found) == layers
    for layer, measured in found.items():
        squares = [
            t.square().sum() for n, t in pieces.items() if (n.rpartition(".")[0] or n) == layer
        ]
        assert measured.value == pytest.approx(math.sqrt(sum(squares)), rel=EXACT)


def test_along_the_gradient(oracle: Oracle) -> None:
    """The loss is lower at one end of the interval, and not at the other."""
    found = critical_sharpness(oracle.loss, oracle.loss.params, tolerance=1e-3)
    along = oracle.diagonal(Elementwise()) ** 2 * oracle.grad
    base = oracle.value(oracle.w)
    low, high = found.bracket
    assert oracle.value(oracle.w - low * along) < base <= oracle.value(oracle.w - high * along)
    assert 0 < high - low <= 1e-3 * high


def test_of_micro_batches() -> None:
    """Each example of one batch with its own worst point."""
    oracle = Oracle(NETWORKS["perceptron"]._replace(batches=NETWORKS["perceptron"].batches[:1]))
    t, rises = oracle.w.abs(), []
    for row in range(5):
        part = slice(row, row + 1)

        def value(numbers: Tensor, part: slice = part) -> Tensor:
            return oracle.value(numbers, rows=part)

        shift = worst_shift(t * oracle.slope(value), t, 0.3, 2.0)
        rises.append((value(oracle.w + shift) - value(oracle.w)).item())
    found = m_sharpness(oracle.loss, oracle.loss.params, Ball(0.3, scale=Elementwise()), m=1)
    assert found.value == pytest.approx(np.mean(rises), rel=EXACT)
