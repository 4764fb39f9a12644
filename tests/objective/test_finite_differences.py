"""Differences of gradients: their error, where they are needed, and what is said without them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from flatmin import (
    Elementwise,
    EmpiricalLoss,
    FiniteDifferences,
    FunctionObjective,
    GaussNewton,
    Identity,
)
from flatmin.sharpness import gradient_norm, hessian_trace, spectral_density, top_eigenvalues


def loss(dtype: torch.dtype = torch.float64) -> EmpiricalLoss:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)
    return EmpiricalLoss(
        model, F.cross_entropy, [(torch.randn(12, 4, dtype=dtype), torch.arange(12) % 3)]
    )


@pytest.mark.parametrize("scale", [Identity(), Elementwise()])
def test_close_to_the_products_of_autograd(scale: Identity | Elementwise) -> None:
    exact = loss()
    w, near = exact.params, FiniteDifferences(exact)
    assert gradient_norm(near, w, scale=scale) == gradient_norm(exact, w, scale=scale)
    one = top_eigenvalues(exact, w, scale=scale, tolerance=1e-8).value
    two = top_eigenvalues(near, w, scale=scale, tolerance=1e-8)
    assert two.value == pytest.approx(one, rel=1e-8)  # s² = 4e-11, times the third derivative
    assert two.warnings == ()
    trace = hessian_trace(near, w, scale=scale, samples=4).value
    assert trace == pytest.approx(hessian_trace(exact, w, scale=scale, samples=4).value, rel=1e-8)


def test_exact_on_a_quadratic_whatever_the_step() -> None:
    bend = torch.tensor([[2.0, 1.0], [1.0, -3.0]], dtype=torch.float64)
    bowl = FunctionObjective(lambda w: w["x"] @ bend @ w["x"] / 2)
    w = {"x": torch.tensor([0.3, -2.0], dtype=torch.float64)}
    v = {"x": torch.tensor([1e-20, 3e-20], dtype=torch.float64)}
    for step in (None, 1e-3, 1.0):
        found = FiniteDifferences(bowl, step).hvp(w, v)["x"]
        torch.testing.assert_close(found, bend @ v["x"], atol=0, rtol=1e-10)
    zero = FiniteDifferences(bowl).hvp(w, {"x": torch.zeros(2, dtype=torch.float64)})
    assert torch.equal(zero["x"], torch.zeros(2, dtype=torch.float64))
    origin = {"x": torch.zeros(2, dtype=torch.float64)}
    torch.testing.assert_close(FiniteDifferences(bowl).hvp(origin, v)["x"], bend @ v["x"])


def test_the_error_falls_with_the_square_of_the_step() -> None:
    quartic = FunctionObjective(lambda w: (w["x"] ** 4).sum())
    w, v = ({"x": torch.full((1,), x, dtype=torch.float64)} for x in (1.0, 1.0))
    errors = [
        abs(FiniteDifferences(quartic, step).hvp(w, v)["x"].item() - 12) for step in (1e-2, 1e-3)
    ]
    assert math.log10(errors[0] / errors[1]) == pytest.approx(2, abs=0.01)


class Square(torch.autograd.Function):
    """x² that forgets its second derivative."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)  # type: ignore[attr-defined]
        return x.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: object, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return 2 * x * grad


def bag() -> EmpiricalLoss:
    torch.manual_seed(0)
    model = nn.Sequential(nn.EmbeddingBag(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    return EmpiricalLoss(
        model, F.cross_entropy, [(torch.randint(6, (8, 3)), torch.randint(3, (8,)))]
    )


def test_where_torch_has_no_second_derivative_they_are_named_and_serve() -> None:
    once = FunctionObjective(lambda w: Square.apply(w["x"]).square().sum())  # type: ignore[no-untyped-call]
    for objective, w in ((bag(), bag().params), (once, {"x": torch.ones(3, dtype=torch.float64)})):
        with pytest.raises(ValueError, match=r"FiniteDifferences\(objective\) takes differences"):
            top_eigenvalues(objective, w)
        found = spectral_density(FiniteDifferences(objective), w, samples=2, steps=3)
        assert found.hvps > 0 and math.isfinite(found.value)
    with pytest.raises(ValueError, match=r"FiniteDifferences\(objective\) takes differences"):
        GaussNewton(bag()).hvp(bag().params, bag().params)
    quartic = FiniteDifferences(once)
    w = {"x": torch.tensor([1.0, 2.0], dtype=torch.float64)}
    assert top_eigenvalues(quartic, w, scale=Identity()).value == pytest.approx(48, rel=1e-8)


def test_of_a_bag_they_are_the_products_of_its_embedding() -> None:
    fused = bag()
    (tokens, targets) = fused.batches[0]  # type: ignore[index]

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.rest = nn.Embedding(6, 4).double(), fused.model[1:]  # type: ignore[index]
            self.table.weight.data.copy_(fused.model[0].weight)  # type: ignore[index]

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.rest(self.table(x).mean(1))
            return out

    plain = EmpiricalLoss(Plain(), F.cross_entropy, [(tokens, targets)])
    one = top_eigenvalues(plain, plain.params).value
    found = top_eigenvalues(FiniteDifferences(fused), fused.params).value
    assert found == pytest.approx(one, rel=1e-8)


def test_what_is_refused() -> None:
    for step in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="step must be above 0 and finite"):
            FiniteDifferences(loss(), step)
    with pytest.raises(TypeError, match="objective must be a loss over data"):
        FiniteDifferences("loss")  # type: ignore[arg-type]
