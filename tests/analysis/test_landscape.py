"""Landscapes: equal to algebra on a quadratic, and the same for rescaled copies."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin import _tree as tree
from flatmin.analysis.landscape import Plane, climbing_plane, edge_of_ball, landscape, loss_at
from flatmin.ball import Ball
from flatmin.objective import EmpiricalLoss, FunctionObjective
from flatmin.scale import Elementwise, Identity, Scale
from flatmin.symmetry import find_scalings, rescale

CURVATURE = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
W = {"x": torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)}
BOWL = FunctionObjective(lambda w: (CURVATURE * w["x"] ** 2).sum() / 2)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("scale", [Identity(), Elementwise()])
@pytest.mark.parametrize("p", [2.0, 3.0, math.inf])
def test_the_losses_of_a_quadratic_are_those_by_hand(scale: Scale, p: float) -> None:
    """L(w + ρ T (x u + y v)) = ½ Σ h (w + ρ T (x u + y v))²."""
    ball = Ball(0.3, p, scale)
    plane = climbing_plane(BOWL, W, ball, generator())
    stretch = W["x"].abs() if scale == Elementwise() else torch.ones_like(W["x"])
    for x, y in ((0.0, 0.0), (1.0, 0.0), (-2.0, 0.5), (0.3, -1.7)):
        u = x * plane.first["x"] + y * plane.second["x"]
        by_hand = (CURVATURE * (W["x"] + 0.3 * stretch * u) ** 2).sum() / 2
        found = loss_at(BOWL, W, ball, plane.at(x, y))
        assert found == pytest.approx(by_hand.item(), rel=1e-12)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
def test_the_first_axis_is_the_steepest_shift_and_the_second_lies_across(p: float) -> None:
    ball = Ball(0.3, p, Elementwise())
    plane = climbing_plane(BOWL, W, ball, generator())
    shift = ball.shift(W, BOWL.value_and_grad(W)[1])
    reached = tree.scale(ball.stretch(W, plane.first), 0.3)
    torch.testing.assert_close(reached, shift, rtol=1e-12, atol=0.0)
    for u in (plane.first, plane.second):
        assert tree.norm(u, p).item() == pytest.approx(1.0, rel=1e-12)
    assert tree.dot(plane.first, plane.second).item() == pytest.approx(0.0, abs=1e-12)


def test_the_second_axis_of_a_quadratic_is_the_gradient_at_the_edge() -> None:
    plane = climbing_plane(BOWL, W, Ball(0.3), generator())
    assert plane.turns
    at_edge = CURVATURE * (W["x"] + 0.3 * plane.first["x"])
    inside = (at_edge @ plane.first["x"]) * plane.first["x"]
    rest = (at_edge - inside) / (at_edge - inside).norm()
    torch.testing.assert_close(plane.second["x"], rest, rtol=1e-10, atol=1e-12)


def test_without_a_gradient_or_a_turn_directions_are_random() -> None:
    bottom = climbing_plane(BOWL, {"x": torch.zeros_like(W["x"])}, Ball(0.3), generator())
    assert tree.norm(bottom.first, 2.0).item() == pytest.approx(1.0)
    straight = FunctionObjective(lambda w: (CURVATURE * w["x"]).sum())
    plane = climbing_plane(straight, W, Ball(0.3), generator())
    assert not plane.turns
    assert tree.norm(plane.second, 2.0).item() == pytest.approx(1.0)
    alone = climbing_plane(straight_in_one(), {"x": torch.ones(1)}, Ball(0.3), generator())
    assert alone.second["x"].item() == 0.0


def straight_in_one() -> FunctionObjective:
    return FunctionObjective(lambda w: w["x"].sum())


def test_the_edge_is_where_the_norm_is_one() -> None:
    plane = climbing_plane(BOWL, W, Ball(0.3, 3.0), generator())
    for x, y in edge_of_ball(plane, 3.0, count=12):
        assert tree.norm(plane.at(x, y), 3.0).item() == pytest.approx(1.0, rel=1e-12)
    nothing = Plane({"x": torch.zeros(1)}, {"x": torch.zeros(1)}, turns=False)
    assert all(math.isnan(x) for x, _ in edge_of_ball(nothing, 2.0, count=4))


def network() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    return model, torch.randn(20, 2, dtype=torch.float64), torch.randint(3, (20,))


@pytest.mark.parametrize(("scale", "same"), [(Elementwise(), True), (Identity(), False)])
def test_a_rescaled_copy_has_the_same_landscape(scale: Scale, same: bool) -> None:
    model, inputs, labels = network()
    lands = []
    for _ in range(2):
        objective = EmpiricalLoss(model, F.cross_entropy, [(inputs, labels)])
        lands.append(landscape(objective, Ball(0.5, scale=scale), grid=5, seed=1))
        scalings = find_scalings(model, inputs)
        rescale(model, scalings, scalings.sample(generator()))
    for name in ("first", "second", "random"):
        assert (lands[0][name] == pytest.approx(lands[1][name], rel=1e-11)) == same
    flat = [[value for row in land["plane"] for value in row] for land in lands]
    assert (flat[0] == pytest.approx(flat[1], rel=1e-11)) == same


def test_a_loss_that_is_not_finite_becomes_none() -> None:
    model, inputs, labels = network()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        plain = F.cross_entropy(outputs, targets)
        return torch.where(plain > middle, torch.inf, plain)

    middle = math.inf
    middle = EmpiricalLoss(model, loss, [(inputs, labels)]).value({}).item() + 1e-3
    land = landscape(EmpiricalLoss(model, loss, [(inputs, labels)]), Ball(0.5), grid=3, seed=0)
    assert land["first"][2] == land["loss"] == pytest.approx(middle - 1e-3)
    assert land["first"][-1] is None
