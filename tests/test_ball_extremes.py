"""Balls at the ends of the number range, of complex numbers, and under other defaults."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from flatmin import Ball, Elementwise
from flatmin import _tree as tree
from slowly import slow_but

P = (1.0, 1.5, 2.0, 3.0, math.inf)
orders = pytest.mark.parametrize("p", P)


@orders
@pytest.mark.parametrize("size", [1e-30, 1e-25, 1e-20, 1e-12, 1.0, 1e12, 1e20, 1e25])
def test_the_size_of_a_gradient_does_not_matter(p: float, size: float) -> None:
    """In single precision, squares vanish below 1e-23 and overflow above 1e19; norms do not."""
    numbers = torch.tensor([3.0, -4.0, 0.5, 0.0])
    w = {"x": torch.ones(4), "y": torch.ones(())}
    grad = {"x": numbers * size, "y": torch.tensor(2.0 * size)}
    exact = {name: t.double() for name, t in grad.items()}
    wide = {name: t.double() for name, t in w.items()}
    ball = Ball(0.5, p, Elementwise())
    assert ball.support(w, grad).item() == pytest.approx(ball.support(wide, exact).item(), rel=1e-6)
    shift, expected = ball.shift(w, grad), ball.shift(wide, exact)
    for name in w:
        torch.testing.assert_close(shift[name].double(), expected[name], rtol=1e-6, atol=1e-7)


def test_a_member_whose_gradient_is_tiny_has_its_own_norm() -> None:
    grad = {"x": torch.tensor([[3.0, 4.0], [3e-25, 4e-25], [3e25, 4e25], [0.0, 0.0]])}
    ball = Ball(torch.ones(4))
    support = ball.support({"x": torch.ones(4, 2)}, grad)
    expected = torch.tensor([5.0, 5e-25, 5e25, 0.0])
    torch.testing.assert_close(support, expected, rtol=1e-6, atol=0.0)
    shift = ball.shift({"x": torch.ones(4, 2)}, grad)["x"]
    torch.testing.assert_close(shift[:3], torch.tensor([[0.6, 0.8]] * 3), rtol=1e-6, atol=0.0)
    assert shift[3].tolist() == [0.0, 0.0]


def test_parts_of_a_norm_are_combined_with_the_same_care() -> None:
    assert tree.combine([torch.tensor(3e-25), torch.tensor(4e-25)], 2.0).item() == pytest.approx(
        5e-25, rel=1e-6
    )


@pytest.mark.parametrize(
    ("dtype", "decades"), [(torch.float32, 6), (torch.float64, 30), (torch.float16, 1)], ids=str
)
def test_ordinary_norms_keep_every_bit(dtype: torch.dtype, decades: int) -> None:
    """What is careful is done only where the plain norm says that it must be."""
    for _ in range(20):
        size = 10.0 ** torch.randint(-decades, decades, ()).item()
        tensors = [(torch.randn(50) * size).to(dtype) for _ in range(3)]
        norms = torch._foreach_norm(tensors, 2.0)
        plain = torch.linalg.vector_norm(torch.stack(list(norms)))
        assert tree.norm({str(i): t for i, t in enumerate(tensors)}, 2.0).equal(plain)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stays_so(value: float) -> None:
    norm = tree.norm({"x": torch.tensor([value, 1.0]), "y": torch.zeros(2)}, 2.0)
    assert norm.isnan() if math.isnan(value) else norm.isinf()


def draws(ball: Ball, like: Tensor, count: int = 4000) -> Tensor:
    """Points of the ball, a row each."""
    source = torch.Generator().manual_seed(0)
    return torch.stack([ball.sample({"x": like}, source)["x"] for _ in range(count)])


@pytest.mark.parametrize("p", slow_but(P, math.inf))
def test_complex_samples_fill_the_ball_evenly(p: float) -> None:
    """‖u‖^{2n} is uniform, as the volume is that of 2n dimensions; and so is each phase."""
    n = 3
    u = draws(Ball(0.5, p), torch.zeros(n, dtype=torch.complex128))
    length = torch.linalg.vector_norm(u, p, dim=1) / 0.5
    assert length.max() <= 1.0
    for power in (1, 2):  # the first moments of a uniform number, within four standard errors
        volume = length ** (2 * n * power)
        error = volume.std() / len(u) ** 0.5
        assert abs(volume.mean() - 1.0 / (1 + power)) < 4.0 * error
    phase = u.angle()
    for wave in (phase.cos(), phase.sin(), (2 * phase).cos()):
        assert wave.mean().abs() < 4.0 * math.sqrt(0.5 / wave.numel())
    # Where in the ball: the first coordinate, against points found by trial and error.
    box = torch.complex(*(torch.rand(2, 200_000, n, dtype=torch.float64) * 2 - 1))
    inside = box[torch.linalg.vector_norm(box, p, dim=1) <= 1.0]
    size, expected = u[:, 0].abs() / 0.5, inside[:, 0].abs()
    error = math.hypot(size.std() / len(u) ** 0.5, expected.std() / len(inside) ** 0.5)
    assert abs(size.mean() - expected.mean()) < 4.0 * error


@orders
def test_complex_points_are_brought_into_the_ball(p: float) -> None:
    u = {"x": torch.tensor([3.0 + 4.0j, 0.1j, -0.2], dtype=torch.complex128)}
    ball = Ball(0.5, p)
    near = ball.project(u)["x"]
    assert torch.linalg.vector_norm(near, p).item() == pytest.approx(0.5, rel=1e-12)
    torch.testing.assert_close(near.sgn(), u["x"].sgn())
    inside = {"x": u["x"] / 100.0}
    torch.testing.assert_close(ball.project(inside)["x"], inside["x"], rtol=1e-15, atol=0.0)


def test_real_samples_are_what_they_were() -> None:
    """The numbers of a seed are part of published results."""
    w = {"x": torch.zeros(2, dtype=torch.float64)}
    found = {p: Ball(1.0, p).sample(w, torch.Generator().manual_seed(0))["x"].tolist() for p in P}
    expected = {
        1.0: [0.14693345999861387, 0.6056374780274293],
        1.5: [0.22569787111739464, 0.340836338173238],
        2.0: [0.8021173129127207, -0.15273523674766884],
        3.0: [0.2918928347624204, 0.4891174815712389],
        math.inf: [0.9401060036131061, 0.4156397287995759],
    }
    for p, numbers in expected.items():
        assert found[p] == pytest.approx(numbers, rel=1e-12)


@contextmanager
def default(value: str | torch.dtype) -> Iterator[None]:
    """A default device or type that no tensor of the test has."""
    if isinstance(value, str):
        torch.set_default_device(value)
    else:
        torch.set_default_dtype(value)
    try:
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def numbers(p: float) -> list[Tensor]:
    """What every method of a ball gives, for one network and for two."""
    made = {"dtype": torch.float32, "device": "cpu"}
    w = {"x": torch.arange(6.0, **made).reshape(2, 3), "e": torch.zeros(0, **made)}
    grad = {name: t + 1.0 for name, t in w.items()}
    found: list[Tensor] = []
    for rho in (0.5, torch.tensor([0.5, 1.0], **made)):
        ball = Ball(rho, p, Elementwise())
        point = w if isinstance(rho, float) else {"x": w["x"]}
        slope = {name: grad[name] for name in point}
        source = torch.Generator("cpu").manual_seed(0)
        for tensors in (
            ball.shift(point, slope),
            ball.sample(point, source),
            ball.project(slope),
            {"": ball.support(point, slope)},
        ):
            found += tensors.values()
    return [*found, tree.norm({"e": w["e"]}, p)]


@orders
@pytest.mark.parametrize("other", ["meta", torch.float64, torch.float16], ids=str)
def test_defaults_of_torch_change_nothing(p: float, other: str | torch.dtype) -> None:
    ordinary = numbers(p)
    with default(other):
        found = numbers(p)
    for a, b in zip(found, ordinary, strict=True):
        assert (a.dtype, a.device) == (b.dtype, b.device)
        assert a.equal(b)
