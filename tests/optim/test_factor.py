"""The factor between block and step: found where there is one, and no other change passes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from flatmin import WSAM
from flatmin.optim._factor import Sizes, common_factor
from flatmin.optim._stretches import STRETCH, stretches

FACTORS = [1.0, 0.3, 2.0**-16, 2.0**16, 0.0]


def gradients(dtype: torch.dtype) -> list[Tensor]:
    """From large to tiny: a stretch and more, several small ones, one without anything in it."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(STRETCH + 5,), (30, 4), (7,), (0,), (3, 2)]
    scales = [1e-2, 1.0, 1e-4, 1.0, 1e-6]
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [(t * scale).to(dtype) for t, scale in zip(drawn, scales, strict=True)]


def all_sizes(tensors: list[Tensor]) -> Sizes:
    found = Sizes()
    for (some,) in stretches(tensors):
        found.add(some)
    return found


def found(before: list[Tensor], now: list[Tensor]) -> float | None:
    return common_factor(all_sizes(before), all_sizes(now))


@pytest.mark.parametrize(
    "t",
    [
        torch.linspace(-1, 2, 300, dtype=torch.float64),
        torch.linspace(-1, 2, 300).view(3, 100).t(),
        torch.linspace(-1, 2, 300)[::7],
        torch.linspace(-1, 2, 300) * 1j,
        torch.linspace(-1, 2, 300).bfloat16(),
        torch.linspace(-1, 2, 1 << 15),
        torch.eye(4).to_sparse(),
        torch.tensor(-3.0),
        torch.empty(0),
    ],
    ids=[
        "a row",
        "columns",
        "every seventh",
        "complex",
        "half",
        "a long one",
        "sparse",
        "one",
        "none",
    ],
)
def test_sizes_are_norms(t: Tensor) -> None:
    sizes = all_sizes([t])
    expected = (t.to_dense() if t.is_sparse else t).reshape(-1)
    expected = torch.linalg.vector_norm(expected.abs().double())
    (dtype,) = sizes.dtypes
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(sizes.all, expected[None], rtol=tolerance, atol=0)
    assert sizes.are_finite()
    assert all_sizes([t * math.inf]).are_finite() is not bool(t.numel())


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_common_factor_is_found(dtype: torch.dtype, factor: float) -> None:
    before = gradients(dtype)
    (got,) = (found(before, [t * factor for t in before]),)
    # A power of two is exact in numbers and norms alike.
    exact = factor == 0 or math.frexp(factor)[0] == 0.5
    assert got == factor if exact else got == pytest.approx(factor, rel=torch.finfo(dtype).eps)


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**-6, 1.0, 8.0])
def test_in_half_precision_numbers_that_vanish_are_none_of_the_users_changes(factor: float) -> None:
    before = gradients(torch.float16)
    got = found(before, [t * factor for t in before])
    # Numbers of 1 keep 8 of their bits at least; the norm of many of them far more.
    assert got == pytest.approx(factor, rel=2.0**-8)


def test_squares_that_vanish_are_no_changes_either() -> None:
    before = [torch.ones(3), torch.full((3,), 1e-20), torch.full((3,), 1e-30)]
    assert found(before, [t * 2.0**-16 for t in before]) == 2.0**-16


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("which", [0, 1, 2, 4])
@pytest.mark.parametrize("change", [0.0, 0.9, 1.1])
def test_another_factor_for_one_is_no_common_one(
    change: float, which: int, dtype: torch.dtype
) -> None:
    """However small it is beside the others: the bias of a layer, a frozen scale."""
    before = gradients(dtype)
    now = [t * (0.5 * (change if i == which else 1.0)) for i, t in enumerate(before)]
    assert found(before, now) is None


def test_what_was_zero_has_to_stay_it() -> None:
    some, none = torch.ones(3), torch.zeros(3)
    assert found([some, none], [some, none]) == 1.0
    assert found([some, none], [some, torch.full((3,), 1e-6)]) is None
    assert found([none, none], [none, none]) == 1.0
    assert found([none, none], [none, some]) is None
    assert found([none, none], [none]) is None


@pytest.mark.parametrize("change", ["drop", "zero", "turn"])
def test_wsam_refuses_the_change_of_a_gradient_that_is_small_beside_the_others(change: str) -> None:
    weight, bias = (nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    optimizer = WSAM(torch.optim.SGD([weight, bias], lr=0.1), 0.3)
    for where in (optimizer.zero_grad, optimizer.perturbed):
        with where() or torch.enable_grad():
            (weight.pow(3).sum() + 1e-5 * bias.pow(3).sum()).backward()
    assert bias.grad is not None
    if change == "drop":
        bias.grad = None
    else:
        bias.grad.mul_(0.0 if change == "zero" else -2.0)
    with pytest.raises(RuntimeError, match="otherwise than by a common factor"):
        optimizer.step()


def test_what_the_last_step_found_does_not_stand_for_this_one() -> None:
    weight, bias = (nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    optimizer = WSAM(torch.optim.SGD([weight, bias], lr=0.0), 0.3)
    for step in range(2):
        for where in (optimizer.zero_grad, optimizer.perturbed):
            with where() or torch.enable_grad():
                (weight.pow(3).sum() + bias.pow(3).sum()).backward()
        if step == 1:
            bias.grad = None
            with pytest.raises(RuntimeError, match="otherwise than by a common factor"):
                optimizer.step()
        else:
            optimizer.step()


@pytest.mark.parametrize("factor", [1.0, 0.5, 2.0**-10])
def test_norms_beyond_half_precision_are_told(factor: float) -> None:
    """4096 numbers of 2000 have the norm 128,000, and float16 ends at 65,504."""
    before = [torch.full(s, v, dtype=torch.float16) for s, v in (((4096,), 2000.0), ((3,), 100.0))]
    assert found(before, [t * factor for t in before]) == pytest.approx(factor, rel=1e-3)
    assert found(before, [before[0] * factor, before[1]]) in (None, 1.0)


@pytest.mark.parametrize("size", [1.0, 1e30])
def test_squares_that_overflow_are_refused(size: float) -> None:
    w = nn.Parameter(torch.ones(4))
    optimizer = WSAM(torch.optim.SGD([("w", w)], lr=1e-32), rho=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        (w.square() * size).sum().backward()
        with optimizer.perturbed():
            (w.square() * size).sum().backward()
        if size == 1.0:
            optimizer.step()
            continue
        with pytest.raises(RuntimeError, match="their squares are not, so the decoupled part"):
            optimizer.step()
        optimizer.zero_grad()
