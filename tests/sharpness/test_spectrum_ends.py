"""The largest eigenvalue beside far larger ones at the other end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flatmin import FunctionObjective, Identity
from flatmin.sharpness import top_eigenvalues


def form(eigenvalues: Tensor, dtype: torch.dtype = torch.float64) -> FunctionObjective:
    """xᵀ A x / 2, with these eigenvalues in random directions."""
    source = torch.Generator().manual_seed(0)
    n = len(eigenvalues)
    basis = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=source))[0]
    matrix = ((basis * eigenvalues) @ basis.T).to(dtype)
    return FunctionObjective(lambda w: 0.5 * w["x"] @ (matrix @ w["x"]))


def spectrum(lowest: float, top: float = 0.1) -> Tensor:
    """One very negative eigenvalue, one on top, and the others below it."""
    ends = torch.tensor([lowest, top], dtype=torch.float64)
    return torch.cat([ends, torch.linspace(0.0, 0.5, 98, dtype=torch.float64) * top])


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7])
@pytest.mark.parametrize("lowest", [-1.0, -10.0, -1e3, -1e6])
def test_a_larger_negative_end_does_not_end_the_search(lowest: float, tolerance: float) -> None:
    w = {"x": torch.ones(100, dtype=torch.float64)}
    found = top_eigenvalues(form(spectrum(lowest)), w, scale=Identity(), tolerance=tolerance)
    assert found.value == pytest.approx(0.1, rel=max(tolerance, 1e-6))
    assert found.residuals[0] <= tolerance * 0.1
    assert (found.warnings, found.hvps < 30) == ((), True)


def test_each_of_several_is_found_to_the_tolerance_of_the_largest() -> None:
    eigenvalues = torch.tensor([-1e4, -1.0, 0.01, 0.5, 1.0], dtype=torch.float64)
    w = {"x": torch.ones(5, dtype=torch.float64)}
    found = top_eigenvalues(form(eigenvalues), w, scale=Identity(), k=3)
    assert found.values == pytest.approx((1.0, 0.5, 0.01), abs=1e-7)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_nor_where_the_first_steps_have_found_no_more_than_is_wanted(k: int) -> None:
    """After k steps the k largest so far hold the negative end."""
    eigenvalues = torch.tensor([-1e6, -1e5, 1e-3, 2e-3, 0.5, 0.4], dtype=torch.float64)
    w = {"x": torch.ones(6, dtype=torch.float64)}
    found = top_eigenvalues(form(eigenvalues), w, scale=Identity(), k=k, tolerance=1e-4)
    exact = eigenvalues.sort(descending=True).values[:k].tolist()
    assert found.values == pytest.approx(exact, abs=1e-4)


def test_too_few_steps_are_told_relative_to_what_is_wanted() -> None:
    w = {"x": torch.ones(100, dtype=torch.float64)}
    found = top_eigenvalues(form(spectrum(-1e6)), w, scale=Identity(), steps=5)
    assert "only after 5 steps" in found.warnings[0]


def test_what_rounding_hides_is_told() -> None:
    """In single precision, products of a matrix of size 1e6 are good to 0.1 at most."""
    w = {"x": torch.ones(100)}
    found = top_eigenvalues(form(spectrum(-1e6), torch.float32), w, scale=Identity())
    assert "near the rounding of the products in float32" in found.warnings[-1]
    assert top_eigenvalues(form(spectrum(-1.0), torch.float32), w, scale=Identity()).warnings == ()


def test_a_top_of_zero_is_found() -> None:
    """Nothing is relative to it: what is below the rounding of the other end is no remainder."""
    eigenvalues = -torch.arange(6.0, dtype=torch.float64)
    w = {"x": torch.ones(6, dtype=torch.float64)}
    found = top_eigenvalues(form(eigenvalues), w, scale=Identity())
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert not any("only after" in sentence for sentence in found.warnings)
