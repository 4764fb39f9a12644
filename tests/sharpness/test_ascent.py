"""One step and the worst case against algebra, and what they cost."""

from __future__ import annotations

import math

import pytest
import torch
from networks import Counting, trained
from torch import Tensor

from flatmin import Ball, Elementwise, EmpiricalLoss, FunctionObjective
from flatmin.sharpness import one_step_sharpness, worst_case_sharpness
from slowly import slow_but

P = (1.0, 1.5, 2.0, 3.0, math.inf)
EXACT = Elementwise()


def quadratic(hessian: Tensor, slope: Tensor) -> FunctionObjective:
    """g·x + x·H·x / 2 in the coordinate x."""
    return FunctionObjective(lambda w: slope @ w["x"] + w["x"] @ hessian @ w["x"] / 2)


def linear(slope: Tensor) -> FunctionObjective:
    """g·x."""
    return FunctionObjective(lambda w: slope @ w["x"])


@pytest.mark.parametrize("p", P)
@pytest.mark.parametrize("measure", [one_step_sharpness, worst_case_sharpness])
def test_a_linear_loss_rises_by_the_support(p: float, measure: object) -> None:
    """ρ ‖T g‖_q, exactly."""
    slope = torch.tensor([3.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    w = {"x": torch.tensor([1.0, 5.0, -2.0, 0.1], dtype=torch.float64)}
    q = math.inf if p == 1 else 1.0 if math.isinf(p) else p / (p - 1)
    expected = 0.3 * torch.linalg.vector_norm(slope * w["x"].abs(), q).item()
    found = measure(linear(slope), w, Ball(0.3, p, EXACT))  # type: ignore[operator]
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert found.worst_loss == pytest.approx((slope @ w["x"]).item() + expected, rel=1e-12)
    assert found.warnings == ()


def exact_rise(hessian: Tensor, slope: Tensor, rho: float) -> float:
    """Largest g·e + e·H·e/2 with ‖e‖₂ ≤ ρ, for H with a positive eigenvalue: (λ − H) e = g."""
    values, vectors = torch.linalg.eigh(hessian)
    along = vectors.T @ slope
    low, high = values[-1].item(), values[-1].item() + slope.norm().item() / rho
    for _ in range(200):
        middle = (low + high) / 2
        length = (along / (middle - values)).norm().item()
        low, high = (middle, high) if length > rho else (low, middle)
    shift = vectors @ (along / (high - values))
    return (slope @ shift + shift @ hessian @ shift / 2).item()


@pytest.mark.parametrize("seed", slow_but(range(5), 0, 1))
def test_a_quadratic_rises_to_the_exact_worst_case(seed: int) -> None:
    """The trust-region problem, solved by bisection on its multiplier."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    hessian = root @ root.T
    slope = torch.randn(6, dtype=torch.float64, generator=generator)
    w = {"x": torch.zeros(6, dtype=torch.float64)}
    found = worst_case_sharpness(quadratic(hessian, slope), w, Ball(0.7), steps=300)
    assert found.value == pytest.approx(exact_rise(hessian, slope, 0.7), rel=1e-8)
    one = one_step_sharpness(quadratic(hessian, slope), w, Ball(0.7))
    assert one.value < found.value


def test_a_quadratic_in_a_box_has_its_worst_case_in_a_corner() -> None:
    hessian = torch.tensor([[2.0, -1.0], [-1.0, 2.0]], dtype=torch.float64)
    slope = torch.tensor([0.1, 0.0], dtype=torch.float64)
    w = {"x": torch.zeros(2, dtype=torch.float64)}
    ball = Ball(1.0, math.inf)
    # The corners (1, 1) and (1, −1) give 1.1 and 3.1; one step cannot leave the first axis.
    assert one_step_sharpness(quadratic(hessian, slope), w, ball).value == pytest.approx(1.1)
    assert worst_case_sharpness(quadratic(hessian, slope), w, ball).value == pytest.approx(3.1)


def test_an_interior_maximum_is_found() -> None:
    """A concave loss whose top lies inside the ball: there is no need to go to the edge."""
    hill = FunctionObjective(lambda w: -(w["x"] - 0.3).square().sum())
    w = {"x": torch.zeros(3, dtype=torch.float64)}
    overshot = one_step_sharpness(hill, w, Ball(5.0))
    assert overshot.value < 0.0
    assert "went past the maximum" in overshot.warnings[0]
    found = worst_case_sharpness(hill, w, Ball(5.0), steps=40)
    assert found.value == pytest.approx(0.27, rel=1e-6)
    assert found.warnings == ()


@pytest.mark.parametrize("p", slow_but(P, 2.0, math.inf))
def test_the_worst_case_grows_with_steps_radius_and_restarts(p: float) -> None:
    net = trained(0)
    w, rho = net.loss.params, 0.05 if math.isinf(p) else 0.3
    ball = Ball(rho, p, EXACT)
    first = one_step_sharpness(net.loss, w, ball).value
    found = [worst_case_sharpness(net.loss, w, ball, steps=steps).value for steps in (1, 3, 6)]
    assert found[0] == max(first, 0.0)
    assert found == sorted(found)
    assert worst_case_sharpness(net.loss, w, ball, steps=6, restarts=1).value >= found[-1]
    assert worst_case_sharpness(net.loss, w, Ball(rho / 2, p, EXACT), steps=6).value < found[-1]


def test_every_trial_lies_in_the_ball() -> None:
    net = trained(1)
    w, ball = net.loss.params, Ball(0.2, 3.0, EXACT)
    lengths = []

    class Watching(Counting):
        def value(self, params: dict[str, Tensor]) -> Tensor:
            u = torch.cat([((params[n] - w[n]) / w[n]).flatten() for n in w])
            lengths.append(torch.linalg.vector_norm(u, 3).item())
            return super().value(params)

    worst_case_sharpness(Watching(net.loss), w, ball, steps=10, restarts=2)
    assert len(lengths) == 30
    assert max(lengths) <= 0.2 * (1 + 1e-12)


@pytest.mark.parametrize("restarts", [0, 3])
def test_cost(restarts: int) -> None:
    net = trained(0)
    w, ball = net.loss.params, Ball(0.2, scale=EXACT)
    counting = Counting(net.loss)
    found = one_step_sharpness(counting, w, ball)
    assert (counting.gradients, counting.forwards, counting.hvps) == (1, 1, 0)
    assert (found.gradients, found.forwards, found.hvps) == (1, 1, 0)
    counting = Counting(net.loss)
    found = worst_case_sharpness(counting, w, ball, steps=8, restarts=restarts)
    assert counting.gradients <= 8 * (1 + restarts)
    assert counting.forwards == 8 * (1 + restarts)
    assert (found.gradients, found.forwards) == (counting.gradients, counting.forwards)


def test_a_measurement_repeats_and_a_generator_changes_it() -> None:
    net = trained(0)
    w, ball = net.loss.params, Ball(0.5, scale=EXACT)
    found = [worst_case_sharpness(net.loss, w, ball, steps=2, restarts=2) for _ in range(2)]
    assert found[0] == found[1]
    other = torch.Generator().manual_seed(5)
    again = worst_case_sharpness(net.loss, w, ball, steps=2, restarts=2, generator=other)
    assert again.value != found[0].value


def test_a_radius_of_zero_is_a_rise_of_zero() -> None:
    net = trained(0)
    assert one_step_sharpness(net.loss, net.loss.params, Ball(0.0)).value == 0.0
    assert worst_case_sharpness(net.loss, net.loss.params, Ball(0.0)).value == 0.0


@pytest.mark.parametrize("options", [{"steps": 0}, {"restarts": -1}])
def test_counts_are_checked(options: dict[str, int]) -> None:
    net = trained(0, steps=0)
    with pytest.raises(ValueError, match="must be at least"):
        worst_case_sharpness(net.loss, net.loss.params, Ball(0.1), **options)


@pytest.mark.parametrize("measure", [one_step_sharpness, worst_case_sharpness])
def test_the_ball_of_an_ensemble_is_refused(measure: object) -> None:
    net = trained(0, steps=0)
    with pytest.raises(ValueError, match="one network and one radius"):
        measure(net.loss, net.loss.params, Ball(torch.ones(3)))  # type: ignore[operator]


def test_a_subset_of_the_parameters_keeps_the_rest() -> None:
    """The rise over a part equals that of a function of that part alone."""
    net = trained(0)
    part = {n: t for n, t in net.loss.params.items() if n.startswith("hidden.2")}
    ball = Ball(0.3, scale=EXACT)
    found = worst_case_sharpness(net.loss, part, ball, steps=5)
    rest = net.loss.params
    alone = FunctionObjective(lambda w: _loss_at(net.loss, {**rest, **w}))
    assert found.value == pytest.approx(worst_case_sharpness(alone, part, ball, steps=5).value)
    assert 0.0 < found.value < worst_case_sharpness(net.loss, rest, ball, steps=5).value


def _loss_at(loss: EmpiricalLoss, params: dict[str, Tensor]) -> Tensor:
    """The same loss, written out."""
    ((inputs, targets),) = loss.batches
    outputs = torch.func.functional_call(loss.model, params, (inputs,))
    return torch.nn.functional.cross_entropy(outputs, targets)
