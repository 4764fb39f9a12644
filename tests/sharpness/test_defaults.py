"""Measures do not ask which device or type torch makes tensors of when it is not told."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flatmin import Ball, Elementwise, EmpiricalLoss, FunctionObjective
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

BALL = Ball(0.3, scale=Elementwise())


def everything(model: nn.Module, data: Any) -> list[Any]:
    """A result of each measure, of a network and of a function."""
    loss = EmpiricalLoss(model, F.cross_entropy, data)
    bowl = FunctionObjective(lambda w: w["x"].pow(4).sum())
    found: list[Any] = [m_sharpness(loss, loss.params, BALL, m=5)]
    for objective, w in ((loss, loss.params), (bowl, {"x": data[0][0][0]})):
        for measure in (
            partial(one_step_sharpness, ball=BALL),
            partial(worst_case_sharpness, ball=BALL, steps=3, restarts=1),
            partial(average_sharpness, ball=BALL, samples=3),
            gradient_norm,
            partial(hessian_trace, samples=3),
            top_eigenvalues,
            partial(spectral_density, samples=2, steps=3),
        ):
            found += [measure(objective, w), per_layer(measure, objective, w)]
    return found


@pytest.mark.slow
def test_defaults_of_torch_change_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))
    data = [(torch.randn(12, 4), torch.arange(12) % 3)]
    expected = everything(model, data)
    try:
        torch.set_default_device("meta")  # whatever is made there has no numbers
        assert everything(model, data) == expected
        torch.set_default_device(None)
        for dtype in (torch.float64, torch.float16):
            torch.set_default_dtype(dtype)
            assert everything(model, data) == expected
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def test_a_network_without_parameters_is_measured_where_it_is() -> None:
    """Its loss is a number, whatever the default device."""
    data = [(torch.randn(6, 3), torch.arange(6) % 3)]
    expected = F.cross_entropy(data[0][0].double(), data[0][1])
    try:
        torch.set_default_device("meta")
        found = EmpiricalLoss(nn.Identity(), F.cross_entropy, data).value({})
    finally:
        torch.set_default_device(None)
    assert found.item() == pytest.approx(expected.item(), rel=1e-14)
