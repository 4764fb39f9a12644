"""GSAM, Friendly SAM, WSAM and SSAM: each equation by hand, its limits, and what is not it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin import GSAM, SAM, SSAM, WSAM, Elementwise, Every, FriendlySAM, Identity
from hand import HAND, matrix, steepest

Formula = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The gradient that the base steps with, from g, s, and the weights."""

MIXED: dict[str, tuple[Any, Formula]] = {
    "GSAM": (
        lambda base, **options: GSAM(base, 0.3, alpha=0.6, **options),
        lambda g, s, w: s - 0.6 * (g - (g @ s) / (s @ s) * s),
    ),
    "SSAM": (
        lambda base, **options: SSAM(base, 0.3, **options),
        lambda g, s, w: s * g.norm() / s.norm(),
    ),
    "coupled WSAM": (
        lambda base, **options: WSAM(base, 0.3, gamma=0.8, decoupled=False, **options),
        lambda g, s, w: 4 * s - 3 * g,
    ),
}
SCALES: dict[str, Any] = {
    "Identity": (Identity(), torch.ones_like),
    "Elementwise": (Elementwise(0.02), lambda w: w.abs() + 0.02),
}


class Bowl(nn.Module):
    """L(w) = ½ wᵀAw with three tensors."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        w = torch.linspace(-1, 1.5, 7, dtype=dtype)
        self.a = matrix().to(dtype)
        self.parts = nn.ParameterList([w[:4].clone().view(2, 2), w[4:6].clone(), w[6].clone()])

    def point(self) -> Tensor:
        return torch.cat([part.detach().flatten() for part in self.parts])

    def forward(self) -> Tensor:
        flat = torch.cat([part.flatten() for part in self.parts])
        return flat @ self.a @ flat / 2


def block(optimizer: Any, bowl: nn.Module) -> None:
    optimizer.zero_grad()
    bowl().backward()
    with optimizer.perturbed():
        bowl().backward()
    optimizer.step()


def closure(optimizer: Any, bowl: nn.Module) -> None:
    def evaluate() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = bowl()
        loss.backward()
        return loss

    optimizer.step(evaluate)


def shift(d: Tensor, w: Tensor, t: Tensor, p: float) -> Tensor:
    return 0.3 * t * steepest(t * d, p)


ALL = pytest.mark.parametrize("loop", [block, closure])
ORDERS = pytest.mark.parametrize("p", [2.0, math.inf])


@ALL
@ORDERS
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("base", HAND)
@pytest.mark.parametrize("variant", MIXED)
def test_the_step_by_hand(variant: str, base: str, scale: str, p: float, loop: Any) -> None:
    (make, formula), (by_hand, make_base) = MIXED[variant], HAND[base]
    chosen, factors = SCALES[scale]
    bowl = Bowl()
    w, state = bowl.point(), {}
    optimizer = make(make_base(bowl.named_parameters()), p=p, scale=chosen)
    for _ in range(7):
        g = bowl.a @ w
        s = bowl.a @ (w + shift(g, w, factors(w), p))
        w = by_hand(w, formula(g, s, w), state)
        loop(optimizer, bowl)
        torch.testing.assert_close(bowl.point(), w, rtol=1e-12, atol=1e-12)


@ALL
@ORDERS
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("base", HAND)
def test_decoupled_wsam_by_hand(base: str, scale: str, p: float, loop: Any) -> None:
    """The base never sees the rise: w ← base(w, g) − lr c (s − g), c = 0.8 / 0.2."""
    by_hand, make_base = HAND[base]
    chosen, factors = SCALES[scale]
    bowl = Bowl()
    w, state = bowl.point(), {}
    optimizer = WSAM(make_base(bowl.named_parameters()), 0.3, gamma=0.8, p=p, scale=chosen)
    for _ in range(7):
        g = bowl.a @ w
        s = bowl.a @ (w + shift(g, w, factors(w), p))
        w = by_hand(w, g, state) - 0.05 * 4 * (s - g)
        loop(optimizer, bowl)
        torch.testing.assert_close(bowl.point(), w, rtol=1e-12, atol=1e-12)


@ALL
@ORDERS
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("base", HAND)
def test_friendly_sam_by_hand(base: str, scale: str, p: float, loop: Any) -> None:
    by_hand, make_base = HAND[base]
    chosen, factors = SCALES[scale]
    bowl = Bowl()
    w, state, mean = bowl.point(), {}, None
    optimizer = FriendlySAM(make_base(bowl.named_parameters()), 0.3, decay=0.6, p=p, scale=chosen)
    for _ in range(7):
        g = bowl.a @ w
        d = g if mean is None else g - mean
        mean = g if mean is None else 0.6 * mean + 0.4 * g
        w = by_hand(w, bowl.a @ (w + shift(d, w, factors(w), p)), state)
        loop(optimizer, bowl)
        torch.testing.assert_close(bowl.point(), w, rtol=1e-11, atol=1e-12)
    found = torch.cat([optimizer.state[p]["sam_mean"].flatten() for p in bowl.parts])
    torch.testing.assert_close(found, mean, rtol=1e-12, atol=1e-13)


# Not it


@pytest.mark.parametrize("variant", ["GSAM", "SSAM"])
def test_products_of_each_tensor_are_another_method(variant: str) -> None:
    """The usual mistake gives visibly other numbers."""
    make, formula = MIXED[variant]
    bowl = Bowl()
    w = bowl.point()
    optimizer = make(torch.optim.SGD(bowl.parameters(), lr=1.0))
    block(optimizer, bowl)
    g = bowl.a @ w
    s = bowl.a @ (w + 0.3 * g / g.norm())
    sizes = [part.numel() for part in bowl.parts]
    each = torch.cat(
        [formula(a, b, w) for a, b in zip(g.split(sizes), s.split(sizes), strict=True)]
    )
    torch.testing.assert_close(w - bowl.point(), formula(g, s, w), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(w - bowl.point(), each, rtol=1e-5)


def test_products_are_over_what_is_in_the_ball() -> None:
    """A group outside is stepped with as by SAM, and does not count."""
    bowl, twin = Bowl(), Bowl()
    outcomes = []
    for net, kind in ((bowl, SSAM), (twin, SAM)):
        groups = [{"params": [*net.parts[:2]]}, {"params": [net.parts[2]], "sam_rho": 0.0}]
        block(kind(torch.optim.SGD(groups, lr=1.0), 0.3), net)
        outcomes.append(Bowl().point() - net.point())
    w = Bowl().point()
    g = bowl.a @ w
    ratio = g[:6].norm() / outcomes[1][:6].norm()
    torch.testing.assert_close(outcomes[0][:6], outcomes[1][:6] * ratio, rtol=1e-12, atol=0)
    assert outcomes[0][6] == outcomes[1][6]


# Limits


LIMITS: dict[str, tuple[Any, Any]] = {
    "GSAM without a gap": (lambda base: GSAM(base, 0.3, alpha=0.0), lambda base: SAM(base, 0.3)),
    "WSAM with a half": (
        lambda base: WSAM(base, 0.3, gamma=0.5, decoupled=False),
        lambda base: SAM(base, 0.3),
    ),
    "WSAM without the rise": (lambda base: WSAM(base, 0.3, gamma=0.0), lambda base: base),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits(name: str) -> None:
    bowls = Bowl(), Bowl()
    for bowl, make in zip(bowls, LIMITS[name], strict=True):
        optimizer = make(torch.optim.Adam(bowl.parameters(), lr=0.05))
        for _ in range(5):
            closure(optimizer, bowl)
    torch.testing.assert_close(bowls[0].point(), bowls[1].point(), rtol=1e-12, atol=1e-13)


def test_a_friendly_climb_from_equal_gradients_has_nowhere_to_go() -> None:
    """What all batches share is no direction: on a plane the second step is the base's."""
    w = nn.Parameter(torch.ones(3, dtype=torch.float64))
    slope = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    optimizer = FriendlySAM(torch.optim.SGD([w], lr=0.1), 0.3, decay=0.5)
    for moved in (True, False, False):
        optimizer.zero_grad()
        (w @ slope).backward()
        start = w.detach().clone()
        with optimizer.perturbed():
            assert torch.equal(w, start) is not moved
            (w @ slope).backward()
        optimizer.step()


@pytest.mark.parametrize("kind", [GSAM, SSAM])
@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e15])
def test_the_size_of_gradients_does_not_matter(kind: Any, size: float) -> None:
    """In float32, where squares of the first and of the last vanish or overflow."""
    found = []
    for factor in (1.0, size):
        bowl = Bowl(torch.float32)
        bowl.a = bowl.a * factor
        start = bowl.point()
        block(kind(torch.optim.SGD(bowl.parameters(), lr=1.0 / factor), 0.3), bowl)
        found.append(bowl.point() - start)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", [GSAM, SSAM, WSAM])
def test_a_second_gradient_of_zero(kind: Any) -> None:
    """Nothing is divided by it."""
    w = nn.Parameter(torch.ones(2))
    optimizer = kind(torch.optim.SGD([w], lr=0.1), 0.5)
    w.sum().backward()
    with optimizer.perturbed():
        (0.0 * w.sum()).backward()
    optimizer.step()
    assert w.isfinite().all()


# State and steps


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_the_mean_is_resumed(make: Any) -> None:
    bowl, twin = Bowl(), Bowl()
    optimizer = FriendlySAM(make(bowl.parameters(), lr=0.05), 0.3)
    for _ in range(3):
        block(optimizer, bowl)
    file = io.BytesIO()
    torch.save((bowl.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, record = torch.load(file, weights_only=True)
    twin.load_state_dict(weights)
    other = FriendlySAM(make(twin.parameters(), lr=0.05), 0.3)
    other.load_state_dict(record)
    for _ in range(3):
        block(optimizer, bowl)
        block(other, twin)
    assert torch.equal(bowl.point(), twin.point())


def test_the_mean_is_of_the_steps_that_perturb_and_are_taken() -> None:
    bowl = Bowl()
    optimizer = FriendlySAM(torch.optim.Adam(bowl.parameters(), lr=0.05), 0.3, when=Every(2))

    def mean() -> Tensor:
        return torch.cat([optimizer.state[p]["sam_mean"].flatten() for p in bowl.parts])

    g = bowl.a @ bowl.point()
    closure(optimizer, bowl)
    torch.testing.assert_close(mean(), g, rtol=1e-12, atol=0)
    closure(optimizer, bowl)
    torch.testing.assert_close(mean(), g, rtol=1e-12, atol=0)
    optimizer.zero_grad()
    bowl().backward()
    with optimizer.perturbed():
        (bowl() * math.nan).backward()
    with pytest.warns(RuntimeWarning, match="skipped a step"):
        optimizer.step()
    torch.testing.assert_close(mean(), g, rtol=1e-12, atol=0)
    now = bowl.a @ bowl.point()
    closure(optimizer, bowl)
    torch.testing.assert_close(mean(), 0.9 * g + 0.1 * now, rtol=1e-12, atol=1e-13)


def test_a_branch_that_only_the_first_pass_takes() -> None:
    """Adam has no state of it yet, and begins it well later."""
    x, y = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    optimizer = FriendlySAM(torch.optim.Adam([x, y], lr=0.1), 0.3)
    for both in (False, True, True):
        optimizer.zero_grad()
        (x.square().sum() + y.square().sum()).backward()
        with optimizer.perturbed():
            (x.square().sum() + (y.square().sum() if both else 0.0)).backward()
        optimizer.step()
        assert ("sam_mean" in optimizer.state.get(y, {})) is both


def test_what_comes_between_block_and_step_reaches_both_parts() -> None:
    """Clipping by the norm, and the scale of a scaler, are common factors; others are refused."""
    ends = []
    for factor in (1.0, 0.25):
        bowl = Bowl()
        optimizer = WSAM(torch.optim.SGD(bowl.parameters(), lr=0.05 / factor), 0.3)
        bowl().backward()
        with optimizer.perturbed():
            bowl().backward()
        for p in bowl.parts:
            p.grad.mul_(factor)
        optimizer.step()
        ends.append(bowl.point())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-13, atol=0)
    bowl = Bowl()
    optimizer = WSAM(torch.optim.SGD(bowl.parameters(), lr=0.05), 0.3)
    bowl().backward()
    with optimizer.perturbed():
        bowl().backward()
    bowl.parts[0].grad.add_(1.0)
    with pytest.raises(RuntimeError, match="otherwise than by a common factor"):
        optimizer.step()


def test_a_look_that_is_thrown_away_leaves_nothing_for_the_step() -> None:
    bowl, twin = Bowl(), Bowl()
    optimizer = WSAM(torch.optim.SGD(bowl.parameters(), lr=0.05), 0.3)
    bare = torch.optim.SGD(twin.parameters(), lr=0.05)
    bowl().backward()
    with optimizer.perturbed():
        bowl().backward()
    for one, net in ((optimizer, bowl), (bare, twin)):
        one.zero_grad()
        net().backward()
        one.step()
    assert torch.equal(bowl.point(), twin.point())


def test_maximize_turns_all_around() -> None:
    for make in (*(pair[0] for pair in MIXED.values()), lambda o: WSAM(o, 0.3), FriendlySAM):
        up, down = Bowl(), Bowl()
        up.a = -up.a
        for maximize, bowl in ((True, up), (False, down)):
            optimizer = make(torch.optim.SGD(bowl.parameters(), lr=0.05, maximize=maximize))
            for _ in range(3):
                block(optimizer, bowl)
        torch.testing.assert_close(up.point(), down.point(), rtol=1e-13, atol=0)


# Misuse


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda base: GSAM(base, alpha=-0.1), "alpha must be finite and at least 0"),
        (lambda base: WSAM(base, gamma=1.0), "gamma must be at least 0 and below 1"),
        (lambda base: FriendlySAM(base, decay=1.0), "decay must be at least 0 and below 1"),
        (lambda base: SSAM(base, rho=-1.0), "rho must be finite and at least 0"),
    ],
)
def test_bad_values(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(torch.optim.SGD(Bowl().parameters(), lr=0.1))


@pytest.mark.parametrize("kind", [FriendlySAM, WSAM])
def test_parts_of_a_batch_that_cannot_be_mixed(kind: Any) -> None:
    optimizer = kind(torch.optim.SGD(Bowl().parameters(), lr=0.1))
    with pytest.raises(RuntimeError, match="one block"), optimizer.micro_batches():
        pass


def test_friendly_sam_tells_of_a_scaler() -> None:
    bowl = Bowl()
    scaler = torch.amp.GradScaler("cpu")
    optimizer = FriendlySAM(torch.optim.SGD(bowl.parameters(), lr=0.1))
    scaler.scale(bowl()).backward()
    with optimizer.perturbed():
        scaler.scale(bowl()).backward()
    with pytest.warns(RuntimeWarning, match="FriendlySAM compares the gradients"):
        scaler.step(optimizer)
