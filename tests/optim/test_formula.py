"""The step is the one of the papers: written out by hand, to the last places of float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import VARIANTS
from flatmin import ASAM, SAM, Ball, Elementwise
from hand import HAND, matrix, steepest

ORDERS = (1.0, 1.5, 2.0, 3.0, math.inf)


def scale_of(variant: str, w: Tensor, eta: float) -> Tensor:
    return torch.ones_like(w) if variant == "SAM" else w.abs() + eta


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("base", HAND)
@pytest.mark.parametrize("variant", ["SAM", "ASAM"])
def test_the_step_by_hand(variant: str, base: str, p: float) -> None:
    """On L(w) = ½ wᵀAw with three tensors: g = Aw, ε = ρ T u(T g), then the base with A(w + ε)."""
    rho, eta = 0.3, 0.02
    a = matrix()
    w = torch.linspace(-1, 1.5, 7, dtype=torch.float64)
    parts = [nn.Parameter(t.clone()) for t in (w[:4].view(2, 2), w[4:6], w[6])]
    by_hand, make = HAND[base]
    named = [(f"{i}.weight", part) for i, part in enumerate(parts)]
    options: dict[str, Any] = {"p": p, "rho": rho} | ({"eta": eta} if variant == "ASAM" else {})
    optimizer = VARIANTS[variant](make(named), **options)

    def backward() -> Tensor:
        flat = torch.cat([part.flatten() for part in parts])
        loss = flat @ a @ flat / 2
        loss.backward()
        return loss

    state: dict[str, Any] = {}
    for _ in range(12):
        t = scale_of(variant, w, eta)
        shift = rho * t * steepest(t * (a @ w), p)
        w = by_hand(w, a @ (w + shift), state)
        optimizer.zero_grad()
        backward()
        with optimizer.perturbed():
            backward()
        optimizer.step()
        found = torch.cat([part.detach().flatten() for part in parts])
        torch.testing.assert_close(found, w, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("p", ORDERS)
def test_a_wrong_order_is_noticed(p: float) -> None:
    other = 2.5 if p != 2.5 else 2.0
    v = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    assert not torch.allclose(steepest(v, p), steepest(v, other))
    assert steepest(v, p).abs().pow(p if p < 10 else 1).max() <= 1.0


def test_published_asam_leaves_biases_unscaled() -> None:
    model = nn.Linear(3, 2).double()
    source = torch.Generator().manual_seed(0)
    grads = [torch.randn(p.shape, generator=source).double() for p in model.parameters()]
    for biases in (False, True):
        optimizer = ASAM(
            torch.optim.SGD(model.named_parameters(), lr=0.1), rho=0.5, eta=0.01, biases=biases
        )
        w, b = (p.detach().clone() for p in model.parameters())
        t = [w.abs() + 0.01, b.abs() + 0.01 if biases else torch.ones_like(b)]
        norm = torch.stack([(s * g).norm() for s, g in zip(t, grads, strict=True)]).norm()
        for p, g in zip(model.parameters(), grads, strict=True):
            p.grad = g.clone()
        with optimizer.perturbed():
            for p, start, s, g in zip(model.parameters(), (w, b), t, grads, strict=True):
                expected = start + 0.5 * s * s * g / norm
                torch.testing.assert_close(p.detach(), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("p", ORDERS)
def test_the_optimizer_climbs_in_the_ball_that_measures_use(p: float) -> None:
    """One definition for both: the shift is ``Ball.shift`` of the whole point."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    for optimizer, ball in (
        (SAM(torch.optim.SGD(model.named_parameters(), lr=0.1), rho=0.3, p=p), Ball(0.3, p)),
        (
            ASAM(torch.optim.SGD(model.named_parameters(), lr=0.1), eta=0.0, biases=True, p=p),
            Ball(0.5, p, Elementwise()),
        ),
    ):
        optimizer.zero_grad()
        model(torch.ones(1, 3, dtype=torch.float64)).square().sum().backward()
        point = {name: q.detach().clone() for name, q in model.named_parameters()}
        grad = {name: q.grad for name, q in model.named_parameters() if q.grad is not None}
        expected = ball.shift(point, grad)
        with optimizer.perturbed():
            for name, q in model.named_parameters():
                torch.testing.assert_close(
                    q.detach(), point[name] + expected[name], rtol=1e-13, atol=1e-15
                )


@pytest.mark.parametrize("variant", ["SAM", "ASAM"])
@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.SparseAdam, torch.optim.Adagrad])
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # of Adagrad's own step
def test_sparse_gradients_are_dense_ones_with_zeros(variant: str, base: Any) -> None:
    def run(sparse: bool) -> Tensor:
        torch.manual_seed(0)
        table = nn.Embedding(9, 3, sparse=sparse, dtype=torch.float64)
        optimizer = VARIANTS[variant](base(list(table.named_parameters()), lr=0.1))
        for index in ([1, 4, 4], [0, 2], [4, 8, 1]):
            optimizer.zero_grad()
            for inside in (False, True):
                if inside:
                    with optimizer.perturbed():
                        table(torch.tensor(index)).square().sum().backward()
                else:
                    table(torch.tensor(index)).square().sum().backward()
            optimizer.step()
        return table.weight.detach()

    if base is torch.optim.SparseAdam:  # which takes no dense ones
        assert run(sparse=True).isfinite().all()
    else:
        torch.testing.assert_close(run(sparse=True), run(sparse=False), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("variant", ["SAM", "ASAM"])
def test_complex_parameters_are_pairs_of_real_ones(variant: str, p: float) -> None:
    """The shift is the steepest one in the norm of moduli, as found by searching for a better."""
    source = torch.Generator().manual_seed(1)
    z = nn.Parameter(torch.randn(5, dtype=torch.complex128, generator=source))
    target = torch.randn(5, dtype=torch.complex128, generator=source)
    options = {"eta": 0.0} if variant == "ASAM" else {}
    optimizer = VARIANTS[variant](torch.optim.SGD([("z", z)], lr=0.1), rho=1e-3, p=p, **options)

    def loss(point: Tensor) -> Tensor:
        return (point - target).abs().square().sum()

    start = z.detach().clone()
    loss(z).backward()
    with optimizer.perturbed():
        shift = z.detach() - start
    t = torch.ones(5, dtype=torch.float64) if variant == "SAM" else start.abs()
    u = shift / t
    assert torch.linalg.vector_norm(u, p).item() == pytest.approx(1e-3, rel=1e-10)
    rise = loss(start + shift) - loss(start)
    assert rise > 0
    for _ in range(200):
        v = torch.randn(5, dtype=torch.complex128, generator=source)
        v = 1e-3 * v / torch.linalg.vector_norm(v, p)
        assert loss(start + t * v) - loss(start) < rise + 1e-5


def test_complex_asam_by_hand() -> None:
    """At z = i with L = |z|² the way up is away from zero; z² in place of |z|² would go down."""
    z = nn.Parameter(torch.tensor([1j], dtype=torch.complex128))
    optimizer = ASAM(torch.optim.SGD([("z", z)], lr=0.1), rho=0.1, eta=0.0)
    z.abs().square().sum().backward()
    with optimizer.perturbed():
        assert z.item() == pytest.approx(1.1j)


@pytest.mark.parametrize("variant", ["SAM", "ASAM"])
@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_the_radius_is_rho_in_every_precision(variant: str, p: float, dtype: Any) -> None:
    """Also where squares of the gradient vanish or overflow in that precision."""
    digits = {torch.float16: 2e-2, torch.bfloat16: 5e-2, torch.float32: 1e-5}[dtype]
    for size in (1e-4, 1.0, 1e3):
        source = torch.Generator().manual_seed(2)
        w = nn.Parameter((torch.rand(400, generator=source) + 0.5).to(dtype))
        optimizer = VARIANTS[variant](torch.optim.SGD([("w", w)], lr=0.1), rho=2.0, p=p)
        w.grad = (torch.randn(400, generator=source) * size).to(dtype)
        start = w.detach().clone()
        with optimizer.perturbed():
            shift = w.detach().double() - start.double()
        t = torch.ones(()) if variant == "SAM" else start.double().abs() + 0.01
        assert torch.linalg.vector_norm(shift / t, p).item() == pytest.approx(2.0, rel=digits)
