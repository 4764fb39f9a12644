"""The plane of the two top eigenvectors: those of a dense Hessian, the same for rescaled copies."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin import _tree as tree
from flatmin.analysis import look
from flatmin.analysis.eigenplane import eigenplane, top_eigenvectors
from flatmin.ball import Ball
from flatmin.objective import EmpiricalLoss, FunctionObjective
from flatmin.scale import Elementwise, Identity, Scale
from flatmin.symmetry import find_scalings, rescale


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def network() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    return model, torch.randn(20, 2, dtype=torch.float64), torch.randint(3, (20,))


@pytest.mark.parametrize("scale", [Identity(), Elementwise()])
def test_directions_are_those_of_a_dense_hessian(scale: Scale) -> None:
    model, x, y = network()
    objective = EmpiricalLoss(model, F.cross_entropy, [(x, y)])
    w, ball = objective.params, Ball(0.5, scale=scale)
    found, values, residuals = top_eigenvectors(objective, w, ball, steps=99, generator=generator())
    stretch = torch.cat([t.expand_as(w[n]).flatten() for n, t in full(scale, w).items()])
    basis = torch.eye(len(stretch), dtype=torch.float64)
    columns = [flat(objective.hvp(w, named(e * stretch, w))) * stretch for e in basis]
    every, vectors = torch.linalg.eigh(torch.stack(columns))
    assert values == pytest.approx([every[-1].item(), every[-2].item()], rel=1e-9)
    assert max(residuals) <= 1e-6 * every[-1].item()
    slope = flat(objective.value_and_grad(w)[1]) * stretch
    for k, u in enumerate(found):
        column = flat(u)
        assert abs(float(column @ vectors[:, -1 - k])) == pytest.approx(1.0, abs=1e-9)
        assert float(slope @ column) >= 0  # the loss rises to the right


def full(scale: Scale, w: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.ones_like(t) for name, t in w.items()} | dict(scale(w))


def flat(tensors: Any) -> Tensor:
    return torch.cat([t.flatten() for t in tensors.values()])


def named(vector: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    pieces = torch.split(vector, [t.numel() for t in like.values()])
    return {n: p.reshape(t.shape) for (n, t), p in zip(like.items(), pieces, strict=True)}


class Squares(nn.Module):
    """Its outputs are w; the mean of their squares is a quadratic."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -0.25, 1.0], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.w


@pytest.mark.parametrize("p", [2.0, math.inf])
def test_on_a_quadratic_the_parabolas_are_the_loss(p: float) -> None:
    x = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    objective = EmpiricalLoss(Squares(), F.mse_loss, [(x, torch.zeros(1, 3, dtype=torch.float64))])
    plane = eigenplane(objective, Ball(0.3, p), grid=5)
    assert plane["eigenvalues"] == pytest.approx([2 * 9 / 3, 2 * 4 / 3], rel=1e-9)
    for k, name in enumerate(("first", "second")):
        bent = [
            plane["loss"] + plane["slopes"][k] * t + plane["bends"][k] * t * t / 2
            for t in plane["line"]
        ]
        assert plane[name] == pytest.approx(bent, rel=1e-9)
    middle = len(plane["grid"]) // 2
    assert plane["plane"][middle][middle] == pytest.approx(plane["loss"])
    assert plane["plane"][middle] == pytest.approx(plane["first"][::2], rel=1e-12)
    assert [row[middle] for row in plane["plane"]] == pytest.approx(plane["second"][::2], rel=1e-12)


@pytest.mark.parametrize(("scale", "same"), [(Elementwise(), True), (Identity(), False)])
def test_a_rescaled_copy_has_the_same_plane(scale: Scale, same: bool) -> None:
    model, x, y = network()
    planes = []
    for _ in range(2):
        objective = EmpiricalLoss(model, F.cross_entropy, [(x, y)])
        planes.append(eigenplane(objective, Ball(0.5, scale=scale), grid=3))
        scalings = find_scalings(model, x)
        rescale(model, scalings, scalings.sample(generator()))
    for name in ("first", "second", "eigenvalues"):
        assert (planes[0][name] == pytest.approx(planes[1][name], rel=1e-6)) == same


def test_what_spans_no_plane_is_refused() -> None:
    model = nn.Linear(1, 1, bias=False)
    objective = EmpiricalLoss(model, F.mse_loss, [(torch.ones(2, 1), torch.ones(2, 1))])
    with pytest.raises(ValueError, match="two parameters at least, got one"):
        eigenplane(objective, Ball(1.0))
    alone = FunctionObjective(lambda w: w["x"].square().sum())
    w = {"x": torch.ones(1)}
    found, values, _ = top_eigenvectors(alone, w, Ball(1.0), steps=3, generator=generator())
    assert values == pytest.approx([2.0]) and tree.norm(found[0], 2.0).item() == 1.0


def test_the_figure_says_the_eigenvalues() -> None:
    model, x, y = network()
    found = look(model, (x, y), measures=["top-eigenvalue"], scalings=0)
    figure = found.plot_eigenplane(grid=3)
    legend = figure.axes[0].get_legend()
    assert legend is not None
    value = found.numbers["top-eigenvalue"]
    assert f"first, λ = {value:.3g}" in legend.get_texts()[0].get_text()
    with pytest.raises(ValueError, match="grid must be at least 2, got 1"):
        found.plot_eigenplane(grid=1)
