"""A certificate tells an invariant measure from one that is not, and hides nothing."""

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from foreign_networks import build, gelu_mlp
from torch import Tensor, nn

from flatmin import Ball, Elementwise, EmpiricalLoss
from flatmin.models import ReportMLP
from flatmin.sharpness import one_step_sharpness
from flatmin.symmetry import (
    Certificate,
    canonicalize,
    certify,
    find_flips,
    find_permutations,
    find_scalings,
)
from flatmin.symmetry.evaluate import deviation
from slowly import slow_but


def network(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return ReportMLP().to(dtype), 5 * torch.randn(8, 2).to(dtype)


def norm(model: nn.Module) -> float:
    return math.sqrt(sum(p.square().sum().item() for p in model.parameters()))


def path_norm(model: nn.Module) -> float:
    """Sum over all paths of the product of squared weights: invariant by construction."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.square_()
        return twin(torch.ones(1, 2, dtype=parameter.dtype)).sum().item()


@pytest.mark.parametrize("dtype", slow_but([torch.float64, torch.float32], torch.float64))
def test_an_invariant_measure_and_one_that_is_not(dtype: torch.dtype) -> None:
    model, x = network(dtype)
    before = copy.deepcopy(model.state_dict())
    good, bad = certify(path_norm, model, x), certify(norm, model, x)
    assert good.invariant and good.spread <= (1e-13 if dtype == torch.float64 else 1e-5)
    assert not bad.invariant and bad.spread > 1
    assert good.deviation == bad.deviation <= (1e-12 if dtype == torch.float64 else 5e-5)
    assert len(good.values) == 51 and len(good.deviations) == 50
    assert bad.values == pytest.approx(bad.weight_norms, rel=1e-6)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert str(good).startswith("invariant under the 40 units that may be rescaled here: spread")
    assert str(bad).startswith("NOT invariant: spread")


@pytest.mark.slow
def test_any_measure_of_the_canonical_network_is_invariant() -> None:
    model, x = network()
    scalings = find_scalings(model, x)

    def measure(twin: nn.Module) -> float:
        canonicalize(twin, scalings)
        return norm(twin)

    assert certify(measure, model, x, num_scalings=10).spread <= 1e-12


def test_a_measure_that_spoils_its_network_gets_a_fresh_one() -> None:
    model, x = network()
    seen = []

    def measure(twin: nn.Module) -> float:
        seen.append(path_norm(twin))
        for parameter in twin.parameters():
            parameter.data.zero_()
        twin.train(not twin.training)
        return seen[-1]

    assert certify(measure, model, x, num_scalings=3).invariant
    assert norm(model) > 0


def test_random_measures_see_the_same_numbers_and_the_callers_state_is_kept() -> None:
    model, x = network()
    state = torch.get_rng_state()
    result = certify(lambda twin: path_norm(twin) * torch.rand(()).item(), model, x, num_scalings=5)
    assert result.invariant
    assert torch.equal(torch.get_rng_state(), state)


def test_values_that_are_not_finite_are_reported() -> None:
    model, x = network()
    calls = iter([1.0, math.nan, 1.0, math.inf, 2.0, 3.0, 1.0])
    result = certify(lambda twin: next(calls), model, x, num_scalings=3)
    assert math.isnan(result.spread) and result.num_not_finite == 2 and not result.invariant
    assert "not finite in 2 of 4 values" in str(result)


def test_a_measure_that_is_always_zero_is_no_success() -> None:
    model, x = network()
    result = certify(lambda twin: 0.0, model, x, num_scalings=3)
    assert not result.invariant and "always zero" in str(result)


def test_a_changed_function_voids_the_certificate() -> None:
    model, x = network()
    wrong = find_scalings(model, x).weights_only()
    result = certify(lambda twin: 1.0, model, x, scalings=wrong, num_scalings=3)
    assert not result.function_kept and not result.invariant
    assert result.verdict.startswith("void: the outputs moved")


def test_outputs_that_are_not_finite_void_the_certificate() -> None:
    model, x = network()
    x[0, 0] = math.nan
    result = certify(lambda twin: 1.0, model, x, num_scalings=3)
    assert math.isnan(result.deviation) and result.verdict.startswith("void")
    late = Certificate((1.0, 1.0, 1.0), (0.0, math.nan), (1.0, 1.0, 1.0), 1.0, 1.0, units=1)
    assert not late.function_kept


def test_the_deviation_of_vanishing_outputs() -> None:
    zero, one = torch.zeros(2).double(), torch.ones(2).double()
    assert deviation(zero, zero) == 0.0
    assert deviation(zero, one) == math.inf


def test_measures_may_return_estimates() -> None:
    model, x = network()
    result = certify(lambda twin: SimpleNamespace(value=path_norm(twin)), model, x, num_scalings=3)
    assert result.invariant


@pytest.mark.slow
@pytest.mark.parametrize("find", [find_permutations, find_flips])
def test_other_symmetries(find: object) -> None:
    model, x = build("tanh")
    symmetries = find(model, x)  # type: ignore[operator]
    assert certify(norm, model, x, scalings=symmetries, num_scalings=10).invariant
    first = certify(lambda twin: twin[0].bias[0].item(), model, x, scalings=symmetries)
    assert not first.invariant and first.function_kept


@pytest.mark.slow
def test_a_given_generator_repeats_the_orbit() -> None:
    model, x = network()
    one, two, other = (
        certify(norm, model, x, num_scalings=2, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert one == two != other


def test_nothing_to_rescale_is_an_error_that_says_why() -> None:
    x = torch.randn(2, 4)
    with pytest.raises(ValueError, match="GELU does not commute with positive scaling"):
        certify(norm, gelu_mlp(), x)
    with pytest.raises(ValueError, match="num_scalings must be at least 1, got 0"):
        certify(norm, *network(), num_scalings=0)


def data(dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(16, 2, generator=generator, dtype=torch.float64).to(dtype)
    return [(inputs, torch.randint(2, (16,), generator=generator))]


def rise(ball: Ball, dtype: torch.dtype, *, loss: bool = False) -> Callable[[nn.Module], float]:
    """The rise of the loss, or the loss itself, at the closed-form worst point."""

    def measure(twin: nn.Module) -> float:
        objective = EmpiricalLoss(twin, F.cross_entropy, data(dtype))
        found = one_step_sharpness(objective, objective.params, ball)
        return found.worst_loss if loss else found.value

    return measure


def perceptron(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
    ).to(dtype)


@pytest.mark.slow
def test_small_dependences_show() -> None:
    """What passed with factors near one and a spread of a hundredth."""
    single, double = torch.float32, torch.float64
    x = data(double)[0][0]
    nearly = rise(Ball(0.05, scale=Elementwise(eta=1e-4)), single)
    assert certify(nearly, perceptron(single), x.float()).verdict.startswith("NOT invariant")
    published = Elementwise(eta=0.01, biases=False)
    tiny = rise(Ball(1e-6, scale=published), double, loss=True)
    assert certify(tiny, perceptron(double), x).verdict.startswith("NOT invariant")
    hidden = certify(lambda twin: 1.0 + 1e-11 * norm(twin), perceptron(double), x)
    assert hidden.verdict.startswith("NOT invariant")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_measures_of_the_invariant_ball_pass(dtype: torch.dtype) -> None:
    x = data(dtype)[0][0]
    result = certify(rise(Ball(0.05, scale=Elementwise()), dtype), perceptron(dtype), x)
    assert result.unchanged, str(result)
    assert result.units == 16
    # The bias of the outputs is a parameter that the ball scales as well, and no symmetry moves.
    assert result.coverage == 1.0


@pytest.mark.slow
def test_a_measure_that_does_not_look_at_what_is_rescaled_was_not_tested() -> None:
    model, x = network()
    frozen = path_norm(model)
    constant = certify(lambda twin: frozen, model, x, num_scalings=3)
    assert constant.verdict.startswith("not tested") and not constant.unchanged
    elsewhere = certify(lambda twin: twin.first.weight.sum() * 0 + frozen, model, x, num_scalings=3)
    assert elsewhere.verdict.startswith("not tested")


def test_parameters_that_no_factor_moves_count_only_if_the_measure_sees_them() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    model, x = model.double(), torch.randn(5, 2).double()

    def last_path(twin: nn.Module) -> Tensor:
        return (twin[4].weight.abs() @ twin[2].weight.abs()).sum()

    within = certify(last_path, model, x, num_scalings=3)
    assert within.untouched == ("0.weight", "0.bias") and within.invariant
    both = certify(lambda twin: last_path(twin) + twin[0].weight.norm(), model, x, num_scalings=3)
    assert both.unchanged and not both.invariant
    assert "also sees 0.weight, 0.bias, of which nothing is known" in both.verdict
