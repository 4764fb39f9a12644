"""A certificate tells an invariant measure from one that is not, and hides nothing."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from foreign_networks import build, gelu_mlp
from torch import Tensor, nn

from flatmin.models import ReportMLP
from flatmin.symmetry import (
    Certificate,
    canonicalize,
    certify,
    find_flips,
    find_permutations,
    find_scalings,
)
from flatmin.symmetry.evaluate import deviation


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
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
    assert str(good).startswith("invariant: spread")
    assert str(bad).startswith("NOT invariant: spread")


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
    calls = iter([1.0, math.nan, 1.0, math.inf])
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
    late = Certificate((1.0, 1.0, 1.0), (0.0, math.nan), (1.0, 1.0, 1.0), 1.0, 1.0)
    assert not late.function_kept


def test_the_deviation_of_vanishing_outputs() -> None:
    zero, one = torch.zeros(2).double(), torch.ones(2).double()
    assert deviation(zero, zero) == 0.0
    assert deviation(zero, one) == math.inf


def test_measures_may_return_estimates() -> None:
    model, x = network()
    result = certify(lambda twin: SimpleNamespace(value=path_norm(twin)), model, x, num_scalings=3)
    assert result.invariant


@pytest.mark.parametrize("find", [find_permutations, find_flips])
def test_other_symmetries(find: object) -> None:
    model, x = build("tanh")
    symmetries = find(model, x)  # type: ignore[operator]
    assert certify(norm, model, x, scalings=symmetries, num_scalings=10).invariant
    first = certify(lambda twin: twin[0].bias[0].item(), model, x, scalings=symmetries)
    assert not first.invariant and first.function_kept


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
