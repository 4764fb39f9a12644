"""Measures on parts: micro-batches of the data, layers of the network."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import trained

from flatmin import Ball, Elementwise, EmpiricalLoss, FiniteDifferences, GaussNewton
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

BALL = Ball(0.2, scale=Elementwise())


def test_m_sharpness_is_the_weighted_mean_over_micro_batches() -> None:
    net = trained(0)
    w, (points, labels) = net.loss.params, net.data
    expected = 0.0
    for start in range(0, 200, 64):
        part = (points[start : start + 64], labels[start : start + 64])
        alone = EmpiricalLoss(net.model, F.cross_entropy, [part])
        expected += one_step_sharpness(alone, w, BALL).value * len(part[1]) / 200
    found = m_sharpness(net.loss, w, BALL, m=64)
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert found.loss == pytest.approx(net.loss.value(w).item(), rel=1e-12)
    assert (found.gradients, found.forwards) == (4, 4)


def test_m_of_all_examples_is_the_plain_sharpness() -> None:
    net = trained(0)
    w = net.loss.params
    assert m_sharpness(net.loss, w, BALL, m=1000) == one_step_sharpness(net.loss, w, BALL)
    worst = partial(worst_case_sharpness, steps=3)
    assert m_sharpness(net.loss, w, BALL, m=200, measure=worst) == worst(net.loss, w, BALL)


def test_smaller_micro_batches_are_sharper() -> None:
    net = trained(0)
    worst = partial(worst_case_sharpness, steps=3)
    found = [
        m_sharpness(net.loss, net.loss.params, BALL, m=m, measure=worst).value
        for m in (200, 50, 20)
    ]
    assert found == sorted(found)


def test_m_sharpness_does_not_depend_on_the_batches() -> None:
    net = trained(0)
    points, labels = net.data
    batches = list(zip(points.split(48), labels.split(48), strict=True))
    other = EmpiricalLoss(net.model, F.cross_entropy, batches)
    w = net.loss.params
    assert m_sharpness(other, w, BALL, m=70).value == pytest.approx(
        m_sharpness(net.loss, w, BALL, m=70).value, rel=1e-12
    )


def test_per_layer_measures_each_layer_alone() -> None:
    net = trained(0)
    w = net.loss.params
    found = per_layer(worst_case_sharpness, net.loss, w, BALL, steps=3)
    assert list(found) == ["first", "hidden.0", "hidden.2", "hidden.4", "last"]
    for layer, sharpness in found.items():
        part = {name: t for name, t in w.items() if name.startswith(layer)}
        assert sharpness == worst_case_sharpness(net.loss, part, BALL, steps=3)


def test_layers_are_held_at_the_point_not_at_the_model() -> None:
    net = trained(0)
    elsewhere = {name: 1.1 * t for name, t in net.loss.params.items()}
    found = per_layer(gradient_norm, net.loss, elsewhere)
    squares = sum(norm.value**2 for norm in found.values())
    assert squares == pytest.approx(gradient_norm(net.loss, elsewhere).value ** 2, rel=1e-12)


@pytest.mark.slow
def test_traces_of_layers_add_up_to_the_trace() -> None:
    net = trained(0)
    layers = per_layer(hessian_trace, net.loss, net.loss.params, samples=20)
    whole = hessian_trace(net.loss, net.loss.params, samples=20)
    total = sum(layer.value for layer in layers.values())
    error = sum(layer.standard_error**2 for layer in layers.values()) + whole.standard_error**2
    assert abs(total - whole.value) <= 3 * error**0.5


def test_a_parameter_without_a_module_is_its_own_layer() -> None:
    class Gain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(()))
            self.shift = torch.nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gain * x + self.shift

    loss = EmpiricalLoss(Gain(), F.mse_loss, [(torch.ones(2), torch.zeros(2))])
    assert list(per_layer(gradient_norm, loss, loss.params)) == ["gain", "shift"]


def test_m_sharpness_layer_by_layer() -> None:
    """The mean over micro-batches of each layer's own."""
    net = trained(0)
    w, (points, labels) = net.loss.params, net.data
    found = per_layer(m_sharpness, net.loss, w, BALL, m=100)
    expected = dict.fromkeys(found, 0.0)
    for some in (slice(0, 100), slice(100, 200)):
        alone = EmpiricalLoss(net.model, F.cross_entropy, [(points[some], labels[some])])
        for layer, each in per_layer(one_step_sharpness, alone, w, BALL).items():
            expected[layer] += each.value / 2
    assert {layer: each.value for layer, each in found.items()} == pytest.approx(expected)


@pytest.mark.parametrize("wrap", [FiniteDifferences, GaussNewton])
def test_what_has_no_data_to_cut_is_refused(wrap: Any) -> None:
    net = trained(0)
    with pytest.raises(TypeError, match=f"got {wrap.__name__}; give the EmpiricalLoss that it is"):
        m_sharpness(wrap(net.loss), net.loss.params, BALL, m=4)
    with pytest.raises(TypeError, match="cuts the data of an EmpiricalLoss"):
        per_layer(m_sharpness, wrap(net.loss), net.loss.params, BALL, m=4)


@pytest.mark.parametrize(
    ("measure", "counts"),
    [
        (m_sharpness, {"m": 4.0}),
        (worst_case_sharpness, {"steps": 5.0}),
        (worst_case_sharpness, {"restarts": 1.0}),
        (average_sharpness, {"samples": 5.0}),
        (critical_sharpness, {"steps": 5.0}),
        (hessian_trace, {"samples": 5.0}),
        (spectral_density, {"steps": 5.0}),
        (top_eigenvalues, {"k": 2.0}),
        (top_eigenvalues, {"steps": "5"}),
    ],
)
def test_counts_are_whole_numbers(measure: Any, counts: dict[str, Any]) -> None:
    net = trained(0)
    given = [net.loss, net.loss.params]
    if measure in (m_sharpness, worst_case_sharpness, average_sharpness):
        given.append(BALL)
    ((name, count),) = counts.items()
    with pytest.raises(TypeError, match=f"{name} must be a whole number, such as"):
        measure(*given, **counts)
    one, other = (measure(*given, **{name: kind(int(count))}) for kind in (int, np.int64))
    assert one.value == other.value
