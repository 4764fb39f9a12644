"""Zeros, infinities and exceptions: a measure warns or refuses, and leaves no trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import trained
from torch import Tensor, nn

from flatmin import (
    Ball,
    Elementwise,
    EmpiricalLoss,
    FiniteDifferences,
    FunctionObjective,
    GaussNewton,
    Identity,
    Objective,
)
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

Measure = Callable[[Objective, dict[str, Tensor]], Any]
BALL = Ball(0.3, scale=Elementwise())

MEASURES: dict[str, Measure] = {
    "one step": partial(one_step_sharpness, ball=BALL),
    "one step, p=∞": partial(one_step_sharpness, ball=Ball(0.1, math.inf, Elementwise())),
    "worst case": partial(worst_case_sharpness, ball=BALL, steps=3),
    "average": partial(average_sharpness, ball=BALL, samples=3),
    "gradient norm": gradient_norm,
    "critical": critical_sharpness,
    "trace": partial(hessian_trace, samples=3),
    "eigenvalues": top_eigenvalues,
    "density": partial(spectral_density, samples=2, steps=5),
}
ALL = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


@ALL
def test_an_unused_zero_parameter_changes_nothing_but_is_told(measure: Measure) -> None:
    net = trained(0)
    first = measure(net.loss, net.loss.params)

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net.model
            self.unused = nn.Parameter(torch.zeros(3, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x)
            return out

    padded = EmpiricalLoss(Padded(), F.cross_entropy, [net.data])
    names = {f"inner.{name}": t for name, t in net.loss.params.items()}
    second = measure(padded, {**names, "unused": torch.zeros(3, dtype=torch.float64)})
    if hasattr(second, "standard_error") or hasattr(second, "residuals"):
        assert math.isfinite(second.value)  # the random directions have three numbers more
    else:
        assert second.value == first.value
    assert (first.dead_fraction, first.warnings) == (0.0, ())
    assert second.dead_fraction == pytest.approx(3 / 373)
    assert "3 parameters (0.80%) are held still" in second.warnings[0]


@ALL
def test_a_zero_initialized_head_is_never_flat_without_a_warning(measure: Measure) -> None:
    net = trained(0)
    nn.init.zeros_(net.model.last.weight)  # type: ignore[union-attr]
    found = measure(net.loss, net.loss.params)
    assert found.value == 0.0
    assert found.dead_fraction == 20 / 370
    assert "held still" in found.warnings[0]


def test_an_eta_brings_a_zero_head_to_life() -> None:
    net = trained(0)
    nn.init.zeros_(net.model.last.weight)  # type: ignore[union-attr]
    found = one_step_sharpness(net.loss, net.loss.params, Ball(0.3, scale=Elementwise(eta=0.01)))
    assert found.value > 0.0
    assert (found.dead_fraction, found.warnings) == (0.0, ())


@ALL
def test_where_nothing_can_move_all_of_it_is_dead(measure: Measure) -> None:
    bowl = FunctionObjective(lambda w: (w["x"] - 1).square().sum())
    found = measure(bowl, {"x": torch.zeros(4)})
    assert (found.value, found.dead_fraction) == (0.0, 1.0)
    assert found.warnings


def test_a_minimum_has_no_first_order_and_says_so() -> None:
    bowl = FunctionObjective(lambda w: w["x"].square().sum())
    w = {"x": torch.zeros(2, dtype=torch.float64)}
    assert "gradient T g is zero" in gradient_norm(bowl, w, scale=Identity()).warnings[-1]
    one = one_step_sharpness(bowl, w, Ball(0.5))
    assert (one.value, len(one.warnings)) == (0.0, 1)
    worst = worst_case_sharpness(bowl, w, Ball(0.5))
    assert worst.value == pytest.approx(0.25)
    assert "began at a random one" in worst.warnings[0]


def test_a_constant_loss_is_flat_with_every_warning() -> None:
    flat = FunctionObjective(lambda w: 0.0 * w["x"].square().sum() + 1.0)
    w = {"x": torch.ones(2)}
    assert "however sharp" in one_step_sharpness(flat, w, BALL).warnings[0]
    assert "zero in every direction" in hessian_trace(flat, w).warnings[0]
    assert "zero in every direction" in top_eigenvalues(flat, w).warnings[0]
    assert "zero in every direction" in spectral_density(flat, w).warnings[0]


@ALL
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused(measure: Measure, bad: float) -> None:
    net = trained(0, steps=0)
    w = {name: torch.full_like(t, bad) for name, t in net.loss.params.items()}
    with pytest.raises(ValueError, match="must be finite"):
        measure(net.loss, w)


def cliff(w: dict[str, Tensor]) -> Tensor:
    """x below 1.2, and nothing beyond."""
    x = w["x"].sum()
    return x if x.item() < 1.2 else x * math.nan


def test_infinity_in_the_ball_is_reported() -> None:
    w = {"x": torch.ones(1, dtype=torch.float64)}
    one = one_step_sharpness(FunctionObjective(cliff), w, Ball(0.5))
    assert one.value == math.inf
    assert "not finite at 1 of 1 points" in one.warnings[0]
    worst = worst_case_sharpness(FunctionObjective(cliff), w, Ball(0.5), steps=10)
    assert worst.value == pytest.approx(0.2, abs=0.02)
    assert "not finite at" in worst.warnings[0]
    steep = worst_case_sharpness(FunctionObjective(cliff), w, Ball(0.5), steps=1)
    assert steep.value == math.inf
    average = average_sharpness(FunctionObjective(cliff), w, Ball(0.5), samples=20)
    assert (average.value, average.standard_error) == (math.inf, math.inf)


def test_an_infinite_gradient_is_refused() -> None:
    root = FunctionObjective(lambda w: w["x"].sqrt().sum())
    w = {"x": torch.zeros(1)}
    for measure in (partial(one_step_sharpness, ball=Ball(0.1)), gradient_norm):
        with pytest.raises(ValueError, match="gradient at params must be finite"):
            measure(root, w, **({"scale": Identity()} if measure is gradient_norm else {}))


def test_a_rise_near_rounding_is_told() -> None:
    net = trained(0, dtype=torch.float32)
    found = one_step_sharpness(net.loss, net.loss.params, Ball(1e-5, scale=Elementwise()))
    assert "near the rounding of the loss in float32" in found.warnings[0]
    double = trained(0)
    found = one_step_sharpness(double.loss, double.loss.params, Ball(1e-5, scale=Elementwise()))
    assert found.warnings == ()


class Casting(nn.Module):
    """Computes its outputs in another type than its parameters have."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.dtype = nn.Linear(4, 3).double(), dtype

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x).to(self.dtype)
        return out


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rise_near_the_rounding_of_a_cast_is_told(dtype: torch.dtype, inside: bool) -> None:
    """In a network whose parameters are float64, by itself or by its loss function."""
    model, x, y = (
        Casting(dtype if inside else torch.float64),
        torch.randn(8, 4),
        torch.arange(8) % 3,
    )

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs if inside else outputs.to(dtype), targets)

    objective = EmpiricalLoss(model, loss, [(x.double(), y)])
    w, ball = objective.params, Ball(1e-5 if dtype is torch.float32 else 1e-2)
    told = f"the loss in {str(dtype)[6:]}, to which the network or its loss function casts"
    for each in (objective, FiniteDifferences(objective), GaussNewton(objective)):
        assert any(told in s for s in one_step_sharpness(each, w, ball).warnings)
    for found in per_layer(one_step_sharpness, objective, w, ball).values():
        assert any(told in s for s in found.warnings)
    exact = EmpiricalLoss(model.layer, F.cross_entropy, [(x.double(), y)])
    assert not one_step_sharpness(exact, exact.params, ball).warnings


def test_parameters_of_few_digits_are_told() -> None:
    net = trained(0, dtype=torch.bfloat16)
    found = one_step_sharpness(net.loss, net.loss.params, BALL)
    assert "round a small shift away" in found.warnings[0]


@ALL
def test_an_objective_without_gradient_is_refused(measure: Measure) -> None:
    if measure is MEASURES["average"]:
        return  # which asks for no gradient
    stone = FunctionObjective(lambda w: torch.tensor(1.0))
    with pytest.raises(ValueError, match="does not depend on the parameters"):
        measure(stone, {"x": torch.ones(2)})


@ALL
def test_a_point_must_have_floating_tensors(measure: Measure) -> None:
    bowl = FunctionObjective(lambda w: w["x"].square().sum())
    with pytest.raises(ValueError, match="at least one tensor"):
        measure(bowl, {})
    with pytest.raises(TypeError, match=r"floating tensors, got torch\.int64 for 'x'"):
        measure(bowl, {"x": torch.ones(2, dtype=torch.int64)})


class Guarded(nn.Module):
    """Batch normalization, and a forward pass that fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
        self.layers[3].eval()
        self.fail_after = math.inf
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > self.fail_after:
            raise KeyError("told to fail")
        out: Tensor = self.layers(x)
        return out


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Everything that a measure must leave alone."""
    return {
        "state": {name: (t.data_ptr(), t.clone()) for name, t in model.state_dict().items()},
        "grads": {name: p.grad.clone() for name, p in model.named_parameters()},
        "needs": [p.requires_grad for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "random": torch.get_rng_state(),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "enabled": (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")),
    }


def same(a: Any, b: Any) -> bool:
    """Equal, bit by bit."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@ALL
@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_nothing_is_left_behind(measure: Measure, fails: bool) -> None:
    model = Guarded()
    inputs, labels = torch.randn(12, 2), torch.randint(2, (12,))
    F.cross_entropy(model(inputs), labels).backward()
    data = torch.utils.data.TensorDataset(inputs, labels)
    torch.backends.cudnn.benchmark = True
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            before = fingerprint(model)
            loader = torch.utils.data.DataLoader(data, batch_size=12)
            loss = EmpiricalLoss(model, F.cross_entropy, loader)
            assert same(before, fingerprint(model))
            if fails:
                model.fail_after = model.calls + (measure not in (gradient_norm,))
                with pytest.raises(KeyError, match="told to fail"):
                    measure(loss, loss.params)
                    measure(loss, loss.params)
            else:
                measure(loss, loss.params)
                m_sharpness(loss, loss.params, BALL, m=6)
                per_layer(measure, loss, loss.params)
            assert same(before, fingerprint(model))
    finally:
        torch.backends.cudnn.benchmark = False


def test_fingerprint_notices() -> None:
    """A change of any kind is seen."""
    model = Guarded()
    inputs, labels = torch.randn(12, 2), torch.randint(2, (12,))
    F.cross_entropy(model(inputs), labels).backward()
    before = fingerprint(model)
    for change in (
        lambda: model(inputs),
        lambda: F.cross_entropy(model(inputs), labels).backward(),
        lambda: model.eval(),
        lambda: torch.rand(1),
    ):
        change()
        after = fingerprint(model)
        assert not same(before, after)
        before = after
