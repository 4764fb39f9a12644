"""Arguments in the wrong order, or of the wrong kind: one sentence that names the right one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from flatmin import FunctionObjective, symmetry
from flatmin.ball import Ball
from flatmin.scale import Elementwise
from flatmin.sharpness import (
    average_sharpness,
    gradient_norm,
    hessian_trace,
    one_step_sharpness,
    spectral_density,
    top_eigenvalues,
    worst_case_sharpness,
)

NETWORK = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
X = torch.ones(2, 3)
SCALINGS = symmetry.find_scalings(NETWORK, X)
PARAMS = dict(NETWORK.named_parameters())
BOWL = FunctionObjective(lambda w: w["x"].square().sum())
POINT = {"x": torch.ones(2)}

WRONG: dict[str, Callable[[], object]] = {
    "find_scalings": lambda: symmetry.find_scalings(X, NETWORK),  # type: ignore[arg-type]
    "find_permutations": lambda: symmetry.find_permutations(X, NETWORK),  # type: ignore[arg-type]
    "find_flips": lambda: symmetry.find_flips(X, NETWORK),  # type: ignore[arg-type]
    "rescale": lambda: symmetry.rescale(SCALINGS, NETWORK, []),  # type: ignore[arg-type]
    "canonicalize": lambda: symmetry.canonicalize(SCALINGS, NETWORK),  # type: ignore[arg-type]
    "verify": lambda: symmetry.verify(X, SCALINGS, [], NETWORK),  # type: ignore[arg-type]
    "certify": lambda: symmetry.certify(lambda m: 1.0, X, NETWORK),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_a_network_that_does_not_come_first(name: str) -> None:
    with pytest.raises(TypeError, match="the network comes first"):
        WRONG[name]()


def test_balance() -> None:
    with pytest.raises(TypeError, match=r"params must map names to tensors, .*named_parameters"):
        symmetry.balance(NETWORK, SCALINGS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Scalings are needed, got dict"):
        symmetry.balance(PARAMS, PARAMS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "measure",
    [gradient_norm, hessian_trace, spectral_density, top_eigenvalues],
    ids=lambda measure: str(measure.__name__),
)
def test_measures_through_a_scale(measure: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match="objective must be a loss over data, got dict"):
        measure(POINT, BOWL)
    with pytest.raises(TypeError, match="params must map names to tensors, got the network"):
        measure(BOWL, NETWORK)


@pytest.mark.parametrize(
    "measure",
    [average_sharpness, one_step_sharpness, worst_case_sharpness],
    ids=lambda measure: str(measure.__name__),
)
def test_measures_in_a_ball(measure: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match="objective must be a loss over data, got dict"):
        measure(POINT, BOWL, Ball(0.1))
    with pytest.raises(TypeError, match="params must map names to tensors, got list"):
        measure(BOWL, [torch.ones(2)], Ball(0.1))
    with pytest.raises(TypeError, match=r"ball must be a flatmin.Ball, such as Ball.*, got 0.1"):
        measure(BOWL, POINT, 0.1)
    with pytest.raises(TypeError, match=r"got Elementwise"):
        measure(BOWL, POINT, Elementwise())
