"""Spectral densities with their errors, and measures layer by layer, against dense algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin._streams import stream
from flatmin.analysis import look
from flatmin.analysis.layers import layers
from flatmin.analysis.measuring import Effort
from flatmin.analysis.spectrum import spectrum
from flatmin.analysis.subject import fit
from flatmin.ball import Ball
from flatmin.objective import EmpiricalLoss
from flatmin.scale import Elementwise, Identity
from flatmin.sharpness import _operator as operator
from flatmin.sharpness import hessian_trace, one_step_sharpness, per_layer


def network() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    return model.double(), [(torch.randn(20, 2, dtype=torch.float64), torch.arange(20) % 2)]


class Squares(nn.Module):
    """Its outputs are w; the mean of their squares has a diagonal Hessian."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.w


def test_a_diagonal_hessian_is_known_without_error() -> None:
    x = torch.tensor([[1.0, 1.0, 2.0, 4.0]], dtype=torch.float64)
    objective = EmpiricalLoss(Squares(), F.mse_loss, [(x, torch.zeros_like(x))])
    found = spectrum(objective, Identity(), samples=3)
    at, density = np.array(found["eigenvalues"]), np.array(found["density"])
    eigenvalues = np.array([0.5, 0.5, 2.0, 8.0])  # 2 x² / 4
    curves = np.exp(-0.5 * ((at[:, None] - eigenvalues) / found["width"]) ** 2)
    by_hand = curves.mean(1) / found["width"] / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(density, by_hand, atol=1e-9)
    assert max(found["error"]) < 1e-9 and found["trace_error"] < 1e-9
    assert found["trace"] == pytest.approx(11.0)
    assert (found["lowest"], found["highest"]) == pytest.approx((0.5, 8.0))
    assert density.sum() * (at[1] - at[0]) == pytest.approx(1.0, abs=1e-3)


def test_the_error_is_that_of_a_mean_of_random_vectors() -> None:
    model, batches = network()
    objective = EmpiricalLoss(model, F.cross_entropy, batches)
    w, samples = objective.params, 4
    found = spectrum(objective, Elementwise(), samples=samples, steps=99, seed=5)
    product = operator.ScaledHessian(objective, w, Elementwise())
    dimension = sum(t.numel() for t in w.values())
    dense = torch.stack([product(e) for e in torch.eye(dimension, dtype=torch.float64)])
    values, vectors = torch.linalg.eigh((dense + dense.T) / 2)
    generator = stream("spectrum", 5)
    at = torch.tensor(found["eigenvalues"])[:, None]
    curves = torch.exp(-0.5 * ((at - values) / found["width"]) ** 2)
    each = []
    for _ in range(samples):
        z = operator.signs(w, generator)
        weights = (z @ vectors) ** 2 / dimension
        each.append(curves @ weights / found["width"] / math.sqrt(2 * math.pi))
    stacked = torch.stack(each)
    # Narrow curves magnify the rounding of their middles, which the iteration finds otherwise.
    np.testing.assert_allclose(found["density"], stacked.mean(0), rtol=1e-4, atol=1e-4)
    error = stacked.std(0) / math.sqrt(samples)
    np.testing.assert_allclose(found["error"], error, rtol=1e-4, atol=1e-4)
    assert max(found["error"]) > 1e-2


def test_layers_are_measured_as_the_library_does() -> None:
    model, batches = network()
    subject = fit(model, batches, torch.device("cpu"), torch.float64)
    ball = Ball(0.5, scale=Elementwise())
    rows = layers(subject, "one-step", ball, Effort())
    objective = subject.objective()
    by_library = per_layer(one_step_sharpness, objective, objective.params, ball)
    assert {row["layer"]: row["value"] for row in rows} == pytest.approx(
        {layer: one.value for layer, one in by_library.items()}, rel=1e-12
    )
    assert [row["parameters"] for row in rows] == [9, 8]
    assert all(row["standard_error"] is None for row in rows)
    assert all(p.requires_grad for p in subject.model.parameters())


def test_errors_and_frozen_layers() -> None:
    model, batches = network()
    model[0].requires_grad_(False)
    subject = fit(model, batches, torch.device("cpu"), torch.float64)
    effort = Effort(samples=4)
    (row,) = layers(subject, "trace", Ball(0.5), effort)
    objective = subject.objective()
    expected = hessian_trace(
        objective, objective.params, scale=Identity(), samples=4,
        generator=effort.generator("trace", objective.params),
    )  # fmt: skip
    assert row["layer"] == "2"
    assert (row["value"], row["standard_error"]) == (expected.value, expected.standard_error)


def test_the_figures_name_units_and_layers() -> None:
    model, batches = network()
    found = look(model, batches, measures=["one-step"], scalings=0)
    ax = found.plot_layers("average").axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0 (9)", "2 (8)"]
    assert "in units of the loss" in ax.get_xlabel()
    ax = found.plot_spectrum(samples=2, steps=9).axes[0]
    assert ax.get_yscale() == "log" and "in units of the loss" in ax.get_xlabel()
    assert ax.get_title(loc="left").startswith("17 eigenvalues, trace ")
    plain = look(model, batches, ball=Ball(0.1), measures=["one-step"], scalings=0)
    assert "per squared unit of a parameter" in plain.plot_spectrum(samples=2).axes[0].get_xlabel()
    with pytest.raises(ValueError, match="there is no measure 'flat'"):
        found.plot_layers("flat")
    with pytest.raises(ValueError, match="samples must be at least 2, got 1"):
        found.plot_spectrum(samples=1)
