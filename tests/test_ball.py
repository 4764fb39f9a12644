"""Balls and scales: duality, projection, sampling, ensembles, and the symmetry of each scale."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flatmin import Ball, Elementwise, Filterwise, Identity, Layerwise, Spectral
from flatmin.scale import Scale
from slowly import slow_but

P = (1.0, 1.5, 2.0, 3.0, math.inf)
SHAPES = {"0.weight": (4, 3), "0.bias": (4,), "1.weight": (2, 4), "gain": ()}
EACH = Spectral(tuple((name, 2.0**n) for n, name in enumerate(SHAPES)))
SCALES = (Identity(), Elementwise(), Elementwise(0.1, False), Filterwise(), Layerwise(), EACH)
Vector = dict[str, Tensor]

orders = pytest.mark.parametrize("p", P)
scales = pytest.mark.parametrize("scale", SCALES, ids=lambda scale: type(scale).__name__)


def draw(generator: torch.Generator, *members: int) -> Vector:
    """Random numbers under each name, for so many members."""
    return {
        name: torch.randn((*members, *shape), dtype=torch.float64, generator=generator)
        for name, shape in SHAPES.items()
    }


def dot(a: Vector, b: Vector) -> float:
    """Inner product."""
    return sum((a[name] * b[name]).sum().item() for name in a)


def length(vector: Vector, p: float) -> float:
    """Norm of all numbers together, the long way round."""
    return torch.linalg.vector_norm(torch.cat([t.flatten() for t in vector.values()]), p).item()


def round_(ball: Ball, w: Vector, shift: Vector) -> Vector:
    """Undo T, where it is not zero."""
    ones = {name: torch.ones_like(t) for name, t in w.items()}
    return {name: shift[name] / t for name, t in ball.stretch(w, ones).items()}


@orders
@scales
def test_the_shift_attains_the_support_at_the_edge(
    p: float, scale: Scale, generator: torch.Generator
) -> None:
    ball, w, grad = Ball(0.7, p, scale), draw(generator), draw(generator)
    shift = ball.shift(w, grad)
    support = ball.support(w, grad).item()
    assert dot(grad, shift) == pytest.approx(support, rel=1e-12)
    assert length(round_(ball, w, shift), p) == pytest.approx(0.7, rel=1e-12)


@pytest.mark.parametrize("p", slow_but(P, 1.0, 2.0, math.inf))
def test_no_point_of_the_ball_rises_above_the_support(p: float, generator: torch.Generator) -> None:
    """The largest of 2,000 random points stays below, and comes near in two dimensions."""
    ball = Ball(0.7, p, Elementwise())
    w = {"x": torch.tensor([0.5, -2.0], dtype=torch.float64)}
    grad = {"x": torch.tensor([3.0, 1.0], dtype=torch.float64)}
    support = ball.support(w, grad).item()
    best = max(dot(grad, ball.sample(w, generator)) for _ in range(2000))
    assert 0.9 * support < best <= support * (1 + 1e-12)


def test_shifts_known_by_hand() -> None:
    w = {"x": torch.tensor([2.0, -1.0, 1.0], dtype=torch.float64)}
    grad = {"x": torch.tensor([3.0, 4.0, -4.0], dtype=torch.float64)}
    # T g = (6, 4, −4): the first wins for p = 1; all move for p = ∞, each by its own size.
    assert Ball(0.5, 1.0, Elementwise()).shift(w, grad)["x"].tolist() == [1.0, 0.0, 0.0]
    assert Ball(0.5, math.inf, Elementwise()).shift(w, grad)["x"].tolist() == [1.0, 0.5, -0.5]
    # T is one: (4, −4) share for p = 1, and q = 3/2 takes roots for p = 3.
    assert Ball(0.5, 1.0).shift(w, grad)["x"].tolist() == [0.0, 0.25, -0.25]
    root = torch.tensor([3.0**0.5, 2.0, -2.0], dtype=torch.float64)
    expected = 0.5 * root / torch.linalg.vector_norm(root, 3)
    torch.testing.assert_close(Ball(0.5, 3.0).shift(w, grad)["x"], expected)


@orders
@scales
def test_a_zero_gradient_gives_a_zero_shift(
    p: float, scale: Scale, generator: torch.Generator
) -> None:
    w = draw(generator)
    zero = {name: torch.zeros_like(t) for name, t in w.items()}
    assert length(Ball(0.7, p, scale).shift(w, zero), 2.0) == 0.0
    assert Ball(0.7, p, scale).support(w, zero).item() == 0.0


@orders
def test_projection(p: float, generator: torch.Generator) -> None:
    ball = Ball(0.7, p)
    outside = draw(generator)
    inside = {name: 1e-3 * t for name, t in outside.items()}
    assert all(torch.equal(t, inside[name]) for name, t in ball.project(inside).items())
    projected = ball.project(outside)
    assert length(projected, p) == pytest.approx(0.7, rel=1e-12)
    again = ball.project(projected)
    assert length({n: again[n] - projected[n] for n in again}, 2.0) < 1e-15
    if p in (2.0, math.inf):  # the nearest point: every other is in an obtuse angle
        out = {n: outside[n] - projected[n] for n in outside}
        for _ in range(200):
            other = ball.sample(outside, generator)
            assert dot(out, {n: other[n] - projected[n] for n in other}) <= 1e-12


# E‖u‖² where u is uniform in the unit ball.
MOMENTS = {1.0: lambda d: 2 * d / ((d + 1) * (d + 2)), 2.0: lambda d: d / (d + 2)}
MOMENTS[math.inf] = lambda d: d / 3


@pytest.mark.parametrize("p", MOMENTS)
@pytest.mark.parametrize("d", [1, 2, 30])
def test_second_moment_of_a_uniform_point(p: float, d: int, generator: torch.Generator) -> None:
    """20,000 points at once, as an ensemble; four standard errors."""
    ball = Ball(torch.full((20000,), 0.7, dtype=torch.float64), p)
    u = ball.sample({"x": torch.zeros(20000, d, dtype=torch.float64)}, generator)["x"]
    squares = u.square().sum(dim=1)
    error = squares.std().item() / math.sqrt(20000)
    assert abs(squares.mean().item() - 0.49 * MOMENTS[p](d)) < 4 * error
    assert u.mean(dim=0).abs().max().item() < 5 * u.std().item() / math.sqrt(20000)


@orders
@pytest.mark.parametrize("d", [2, 5])
def test_the_share_within_a_smaller_ball(p: float, d: int, generator: torch.Generator) -> None:
    """A uniform point lies within r of the center with chance rᵈ, for every order."""
    ball = Ball(torch.ones(20000, dtype=torch.float64), p)
    u = ball.sample({"x": torch.zeros(20000, d, dtype=torch.float64)}, generator)["x"]
    lengths = torch.linalg.vector_norm(u, p, dim=1)
    assert lengths.max() <= 1.0
    for r in (0.5, 0.8):
        chance = r**d
        error = math.sqrt(chance * (1 - chance) / 20000)
        assert abs((lengths < r).double().mean().item() - chance) < 4 * error


@orders
def test_samples_do_not_depend_on_the_point(p: float) -> None:
    """Two networks get the same u under the same seed."""
    ball = Ball(0.7, p, Elementwise())
    sources = [torch.Generator().manual_seed(4) for _ in range(2)]
    w = draw(torch.Generator().manual_seed(0))
    doubled = {name: 2 * t for name, t in w.items()}
    one, two = ball.sample(w, sources[0]), ball.sample(doubled, sources[1])
    assert all(torch.equal(2 * one[name], two[name]) for name in one)


@orders
@scales
def test_an_ensemble_is_its_members_one_by_one(
    p: float, scale: Scale, generator: torch.Generator
) -> None:
    rho = torch.tensor([0.1, 0.0, 2.0], dtype=torch.float64)
    together, w, grad = Ball(rho, p, scale), draw(generator, 3), draw(generator, 3)
    grad["0.weight"][0] = 0.0
    shift, support = together.shift(w, grad), together.support(w, grad)
    outside = together.project(grad)
    assert support.shape == (3,)
    for member in range(3):
        alone = Ball(rho[member].item(), p, scale)
        point, slope = ({n: t[member] for n, t in tree.items()} for tree in (w, grad))
        torch.testing.assert_close(support[member], alone.support(point, slope), check_dtype=False)
        for found, expected in (
            (shift, alone.shift(point, slope)),
            (outside, alone.project(slope)),
        ):
            for name in expected:
                torch.testing.assert_close(found[name][member], expected[name], rtol=1e-12, atol=0)


def rescaled(w: Vector, factors: Tensor, power: int = 1) -> Vector:
    """Multiply what enters four hidden units by τ and divide what leaves them, or the reverse."""
    t = factors**power
    return {
        "0.weight": w["0.weight"] * t[:, None],
        "0.bias": w["0.bias"] * t,
        "1.weight": w["1.weight"] / t,
        "gain": w["gain"],
    }


def change(ball: Ball, generator: torch.Generator) -> float:
    """How far the shift of a rescaled network is from the rescaled shift, relative to it."""
    w, grad = draw(generator), draw(generator)
    factors = torch.tensor([0.2, 3.0, 1.0, 0.5], dtype=torch.float64)
    shift = ball.shift(rescaled(w, factors), rescaled(grad, factors, -1))
    expected = rescaled(ball.shift(w, grad), factors)
    return length({n: shift[n] - expected[n] for n in shift}, 2.0) / length(expected, 2.0)


@orders
def test_the_elementwise_scale_follows_a_rescaling_of_units(
    p: float, generator: torch.Generator
) -> None:
    assert change(Ball(0.7, p, Elementwise()), generator) < 1e-12


@orders
@pytest.mark.parametrize(
    "scale",
    [Identity(), Filterwise(), Layerwise(), Elementwise(eta=0.01), Elementwise(biases=False)],
    ids=lambda scale: f"{scale}",
)
def test_the_other_scales_do_not(p: float, scale: Scale, generator: torch.Generator) -> None:
    if p == 1.0:  # where the one coordinate that moves may be a lucky one
        return
    assert change(Ball(0.7, p, scale), generator) > 1e-3


def test_scales_follow_the_rescalings_that_they_are_made_for(generator: torch.Generator) -> None:
    """Filters (rows) as wholes; tensors as wholes."""
    w, grad = draw(generator), draw(generator)
    rows = torch.tensor([0.2, 3.0, 1.0, 0.5], dtype=torch.float64)

    def scaled(v: Vector, power: int) -> Vector:
        return {**v, "0.weight": v["0.weight"] * rows[:, None] ** power}

    def doubled(v: Vector, power: int) -> Vector:
        return {**v, "0.weight": v["0.weight"] * 2.0**power, "1.weight": v["1.weight"] * 0.5**power}

    for scale, transform in (
        (Filterwise(), scaled),
        (Filterwise(), doubled),
        (Layerwise(), doubled),
    ):
        ball = Ball(0.7, 2.0, scale)
        found = ball.shift(transform(w, 1), transform(grad, -1))
        expected = transform(ball.shift(w, grad), 1)
        assert length({n: found[n] - expected[n] for n in found}, 2.0) < 1e-12
    ball = Ball(0.7, 2.0, Layerwise())
    found, expected = ball.shift(scaled(w, 1), scaled(grad, -1)), scaled(ball.shift(w, grad), 1)
    assert length({n: found[n] - expected[n] for n in found}, 2.0) > 1e-3


@orders
@scales
def test_nothing_is_written(p: float, scale: Scale, generator: torch.Generator) -> None:
    ball, w, grad = Ball(0.7, p, scale), draw(generator), draw(generator)
    copies = [{n: t.clone() for n, t in tree.items()} for tree in (w, grad)]
    ball.shift(w, grad)
    ball.support(w, grad)
    ball.stretch(w, grad)
    ball.sample(w, generator)
    ball.project(grad)
    for tree, copy in zip((w, grad), copies, strict=True):
        assert all(torch.equal(tree[name], copy[name]) for name in copy)


@pytest.mark.parametrize("p", [0.5, 0.0, -1.0, math.nan])
def test_orders_that_are_no_norm(p: float) -> None:
    with pytest.raises(ValueError, match="p must be in"):
        Ball(0.1, p)


@pytest.mark.parametrize("rho", [-0.1, math.nan, math.inf, torch.tensor([0.1, -1.0])])
def test_radii_that_are_none(rho: float | Tensor) -> None:
    with pytest.raises(ValueError, match="rho must be finite and at least 0"):
        Ball(rho)
    with pytest.raises(ValueError, match="eta must be finite and at least 0"):
        Elementwise(eta=rho)
    with pytest.raises(TypeError, match="must be a number"):
        Ball("0.1")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e6])
@pytest.mark.parametrize("p", [1.05, 1.2, 20.0])
def test_large_powers_of_small_and_large_gradients(p: float, size: float) -> None:
    """In float32, where |v|^q with q = p / (p − 1) would vanish or overflow."""
    v = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    ball, point, grad = Ball(0.5, p), {"x": v}, {"x": v * size}
    shift = ball.shift(point, grad)["x"]
    assert shift.norm(p).item() == pytest.approx(0.5, rel=1e-5)
    rise = (shift.double() * grad["x"].double()).sum().item()
    assert rise == pytest.approx(ball.support(point, grad).item(), rel=1e-5)
