"""Critical sharpness against algebra on quadratics, its limits, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from networks import Counting, orbit, spread, trained
from torch import Tensor

from flatmin import Elementwise, FunctionObjective, Identity
from flatmin.sharpness import critical_sharpness, top_eigenvalues

State = dict[str, Tensor]


def bowl(seed: int) -> tuple[FunctionObjective, State, Tensor, Tensor]:
    """A quadratic, a point, and Hessian and gradient there."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    matrix = root @ root.T
    slope = torch.randn(5, dtype=torch.float64, generator=generator)
    x = torch.randn(5, dtype=torch.float64, generator=generator)
    function = FunctionObjective(lambda w: slope @ w["x"] + w["x"] @ matrix @ w["x"] / 2 + 3)
    return function, {"x": x}, matrix, slope + matrix @ x


@pytest.mark.parametrize("scale", [Identity(), Elementwise()], ids=["identity", "elementwise"])
@pytest.mark.parametrize("seed", range(5))
def test_on_a_quadratic_it_is_the_curvature_along_the_gradient(
    seed: int, scale: Identity | Elementwise
) -> None:
    """vᵀ T H T v / vᵀv for v = T g."""
    loss, w, matrix, grad = bowl(seed)
    t = scale(w).get("x", torch.ones_like(grad))
    v = t * grad
    expected = (v * t @ matrix @ (t * v) / (v @ v)).item()
    found = critical_sharpness(loss, w, scale=scale, tolerance=1e-12)
    assert found.value == pytest.approx(expected, rel=1e-10)
    assert found.value == pytest.approx(2 / found.eta_c, rel=1e-15)
    assert found.value <= top_eigenvalues(loss, w, scale=scale).value
    assert found.warnings == ()
    low, high = critical_sharpness(loss, w, scale=scale).bracket
    assert low < 2 / expected < high
    assert 1 - low / high <= 1 / 16


def test_of_an_update_it_is_the_step_that_gains_nothing() -> None:
    """⟨g, Δ⟩ = η ΔᵀHΔ / 2, whatever the first step; names may be left out."""
    loss, w, matrix, grad = bowl(0)
    delta = grad.sign()
    expected = (delta @ matrix @ delta / (grad @ delta)).item()
    both = FunctionObjective(lambda p: loss.function(p) + p["y"].square().sum())
    point = {**w, "y": torch.ones(3, dtype=torch.float64)}
    for start in (None, 1e-3, 0.3, 40.0):
        found = critical_sharpness(both, point, update={"x": delta}, start=start, tolerance=1e-12)
        assert found.value == pytest.approx(expected, rel=1e-10)
    halved = critical_sharpness(both, point, update={"x": delta / 2}, tolerance=1e-12)
    assert halved.value == pytest.approx(expected / 2, rel=1e-10)


def test_gradient_descent_at_the_critical_rate_stays_at_its_loss() -> None:
    """An independent step of torch's SGD, at the end of the bracket on either side."""
    net = trained(0, steps=20)
    w = net.loss.params
    found = critical_sharpness(net.loss, w, scale=Identity(), tolerance=1e-3)
    before = net.loss.value(w).item()
    after = []
    for lr in found.bracket:
        parameters = {n: t.clone().requires_grad_() for n, t in w.items()}
        for name, g in net.loss.value_and_grad(w)[1].items():
            parameters[name].grad = g
        torch.optim.SGD(parameters.values(), lr=lr).step()
        after.append(net.loss.value({n: t.detach() for n, t in parameters.items()}).item())
    assert after[0] < before <= after[1]


def test_rescaling_is_felt_by_identity_alone() -> None:
    net = trained(1)
    states = list(orbit(net, 20))[::10]
    exact = [critical_sharpness(net.loss, w, tolerance=1e-6).value for w in states]
    plain = [critical_sharpness(net.loss, w, scale=Identity()).value for w in states]
    assert spread(exact) <= 1e-9
    assert spread(plain) >= 1


@pytest.mark.parametrize("given", [False, True])
def test_cost(given: bool) -> None:
    net = trained(0)
    w = net.loss.params
    update = net.loss.value_and_grad(w)[1] if given else None
    counting = Counting(net.loss)
    found = critical_sharpness(counting, w, update=update)
    assert (found.gradients, found.forwards) == (counting.gradients, counting.forwards)
    assert (counting.gradients, counting.hvps) == (int(not given), 0)
    assert found.forwards <= 12


def test_a_loss_that_only_falls_has_no_crossing() -> None:
    slope = FunctionObjective(lambda w: w["x"].sum())
    found = critical_sharpness(slope, {"x": torch.ones(2)}, steps=10)
    assert (found.value, found.eta_c, found.bracket[1]) == (0.0, math.inf, math.inf)
    assert "still lower after" in found.warnings[0]


def test_an_update_that_climbs_has_no_fall() -> None:
    loss, w, _, grad = bowl(0)
    found = critical_sharpness(loss, w, update={"x": -grad}, steps=10)
    assert (found.value, found.eta_c, found.forwards) == (math.inf, 0.0, 11)
    assert "did not fall after any of 10 steps" in found.warnings[0]


def test_a_step_to_where_the_loss_is_not_finite_is_too_long() -> None:
    well = FunctionObjective(lambda w: -w["x"].log().sum() + 3 * w["x"].sum())
    w = {"x": torch.tensor([1.0], dtype=torch.float64)}
    found = critical_sharpness(well, w, scale=Identity(), tolerance=1e-9)
    x = 1 - 2 * found.eta_c
    assert 0 < x < 1 / 3
    assert -math.log(x) + 3 * x == pytest.approx(3.0, abs=1e-6)


def test_nothing_is_known_where_nothing_moves() -> None:
    still = FunctionObjective(lambda w: w["x"].square().sum())
    w = {"x": torch.zeros(2)}
    found = critical_sharpness(still, w, scale=Identity())
    assert (found.value, found.forwards) == (0.0, 0)
    assert "scaled gradient T g is zero" in found.warnings[0]
    found = critical_sharpness(still, w, update={"x": torch.zeros(2)})
    assert "the update is zero" in " ".join(found.warnings)


def test_a_fall_near_rounding_is_told() -> None:
    shallow = FunctionObjective(lambda w: 1e6 + w["x"].square().sum())
    found = critical_sharpness(shallow, {"x": torch.ones(2)}, scale=Identity(), start=0.5)
    assert "near its rounding in float32" in found.warnings[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0.0}, "tolerance must be between 0 and 1, got 0.0"),
        ({"tolerance": 1.0}, "tolerance must be between 0 and 1"),
        ({"start": 0.0}, "start must be above 0"),
        ({"start": math.nan}, "start must be above 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"update": {"y": torch.ones(2)}}, "for 'y', where there is no such parameter"),
        ({"update": {"x": torch.ones(3)}}, r"got \(3,\) for 'x', where there is \(2,\)"),
        ({"update": {"x": torch.ones(2)}, "scale": Identity()}, "give one of both"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    loss = FunctionObjective(lambda w: w["x"].square().sum())
    with pytest.raises(ValueError, match=message):
        critical_sharpness(loss, {"x": torch.ones(2)}, **options)  # type: ignore[arg-type]
