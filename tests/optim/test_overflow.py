"""A gradient that is not finite skips the step: with one warning, or by way of GradScaler."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import PAIRS, VARIANTS, Careless, Zoo, assert_same_bits, bits, build, same
from flatmin import SAM

PASSES = ("first", "second", "both")

# A scale that stays does no harm to what compares the gradients of different steps.
TOLD = pytest.mark.filterwarnings("ignore:FriendlySAM compares the gradients")


def visit(optimizer: Any, zoo: Zoo, bad: str = "", value: float = math.inf) -> None:
    for_first, for_second = bad in ("first", "both"), bad in ("second", "both")
    optimizer.zero_grad()
    zoo().backward()
    if for_first:
        zoo.image.grad[0, 0, 0, 0] = value
    with optimizer.perturbed():
        zoo().backward()
        if for_second:
            zoo.image.grad[0, 0, 0, 0] = value


@pytest.mark.parametrize("bad", PASSES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_step_is_skipped_with_one_warning(variant: str, value: float, bad: str) -> None:
    zoo = Zoo()
    optimizer = build(variant, "SGD", zoo)
    visit(optimizer, zoo)
    optimizer.step()
    before, state = bits(zoo), optimizer.state_dict()
    visit(optimizer, zoo, bad, value)
    place = "perturbed point" if bad == "second" else "weights"
    with pytest.warns(RuntimeWarning, match=f"{variant} skipped .* {place} was not fin") as caught:
        optimizer.step()
    assert len(caught) == 1 and caught[0].filename == __file__
    assert_same_bits(before, zoo)
    assert same(state, optimizer.state_dict())  # momentum has not seen the event
    visit(optimizer, zoo)
    optimizer.step()
    with pytest.raises(AssertionError):
        assert_same_bits(before, zoo)


@pytest.mark.parametrize("value", [1e25, -1e25])
def test_a_gradient_whose_norm_overflows_is_finite(value: float) -> None:
    x = nn.Parameter(torch.ones(3))
    optimizer = SAM(torch.optim.SGD([x], lr=1e-26), rho=0.1)
    x.square().sum().backward()
    with optimizer.perturbed():
        x.grad = torch.full_like(x, value)
        assert x.grad.norm().isinf()
    before = x.detach().clone()
    optimizer.step()
    torch.testing.assert_close(x, before - 1e-26 * value)
    assert not torch.equal(x, before)


@pytest.mark.parametrize(("variant", "base"), PAIRS)
def test_training_goes_on_as_if_the_batch_had_not_been(variant: str, base: str) -> None:
    torch.manual_seed(3)
    zoo = Zoo()
    torch.manual_seed(3)
    spared = Zoo()
    optimizer, other = build(variant, base, zoo), build(variant, base, spared)
    for step in range(6):
        if step in (0, 3):
            visit(optimizer, zoo, "first" if step else "second", math.nan)
            with pytest.warns(RuntimeWarning):
                optimizer.step()
        visit(optimizer, zoo)
        optimizer.step()
        visit(other, spared)
        other.step()
    assert same(zoo.state_dict(), spared.state_dict())


def test_a_careless_wrapper_is_noticed() -> None:
    zoo = Zoo()
    careless = Careless(torch.optim.SGD(zoo.parameters(), lr=0.1))
    before = bits(zoo)
    visit(careless, zoo, "first", math.nan)
    with pytest.raises(AssertionError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        careless.step()
        assert_same_bits(before, zoo)


def test_a_closure_learns_of_it_too() -> None:
    x = nn.Parameter(torch.ones(2))
    optimizer = build("SAM", "SGD", nn.ParameterDict({"x": x}))
    optimizer.zero_grad()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (x * math.inf).sum()
        loss.backward()
        return loss

    with pytest.warns(RuntimeWarning, match="weights was not finite"):
        assert optimizer.step(closure).item() == math.inf
    assert x.tolist() == [1.0, 1.0]


def test_an_event_is_forgotten_by_zero_grad_and_by_an_exception() -> None:
    """A step without a perturbation afterwards is an ordinary step."""
    zoo = Zoo()
    optimizer = build("SAM", "SGD", zoo)
    visit(optimizer, zoo, "first")
    optimizer.zero_grad()
    zoo().backward()
    before = bits(zoo)
    optimizer.step()
    with pytest.raises(AssertionError):
        assert_same_bits(before, zoo)

    optimizer.zero_grad()
    zoo().backward()
    zoo.image.grad[0, 0, 0, 0] = math.inf
    with pytest.raises(KeyError), optimizer.perturbed():
        raise KeyError
    zoo().backward()
    before = bits(zoo)
    optimizer.step()
    with pytest.raises(AssertionError):
        assert_same_bits(before, zoo)


def test_a_gradient_set_by_hand_is_spoiled_too() -> None:
    """As sharded models do it: without autograd writing ``.grad``."""
    x = nn.Parameter(torch.ones(2))
    optimizer = build("SAM", "SGD", nn.ParameterDict({"x": x}))
    x.grad = torch.tensor([math.nan, 1.0])
    with optimizer.perturbed():
        x.grad = torch.ones(2)
    assert x.grad.isnan().all()


def test_every_gradient_of_the_body_is_spoiled_before_it_is_accumulated() -> None:
    """So that what averages gradients over replicas carries the event to all of them."""
    zoo = Zoo()
    optimizer = build("SAM", "SGD", zoo)
    seen = []
    zoo.scalar.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.isnan().all()))
    visit(optimizer, zoo, "first")
    visit(optimizer, zoo)
    assert [bool(nan) for nan in seen] == [False, True, False, False]


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("rho", [0.1, 0.0])
def test_a_group_outside_the_ball_is_looked_at_too(rho: float, closure: bool) -> None:
    """In the first pass as in the second; with a closure both passes are one where none climbs."""
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    groups = [{"params": [a]}, {"params": [b], "sam_rho": 0.0}]
    optimizer = SAM(torch.optim.SGD(groups, lr=0.1), rho=rho)
    passes = iter([math.nan, 1.0])

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        loss = (a + b * next(passes)).sum()
        loss.backward()
        return loss

    if closure and rho == 0.0:
        optimizer.step(evaluate)
        assert b.isnan().all()  # as the base alone
        return
    with pytest.warns(RuntimeWarning, match="at the weights was not finite"):
        if closure:
            optimizer.step(evaluate)
        else:
            evaluate()
            with optimizer.perturbed():
                (a + b * next(passes)).sum().backward()
            optimizer.step()
    assert (a.item(), b.item()) == (1.0, 1.0)


@pytest.mark.parametrize("bad", [1.0, math.nan])
def test_a_sparse_gradient_without_numbers(bad: float) -> None:
    torch.manual_seed(0)
    bag, head = nn.EmbeddingBag(10, 4, sparse=True, mode="sum"), nn.Linear(4, 3)
    model = nn.ModuleList([bag, head])
    optimizer = build("SAM", "SGD", model, rho=0.5, lr=0.1)
    nothing = torch.tensor([], dtype=torch.long), torch.tensor([0, 0])

    def backward(factor: float) -> None:
        targets = torch.tensor([0, 1])
        (nn.functional.cross_entropy(head(bag(*nothing)), targets) * factor).backward()

    before = bits(model)
    optimizer.param_groups[0]["weight_decay"] = 0.0  # which takes no sparse gradients
    backward(1.0)
    with optimizer.perturbed():
        backward(bad)
    if math.isnan(bad):
        with pytest.warns(RuntimeWarning, match="at the perturbed point was not finite"):
            optimizer.step()
        assert_same_bits(before, model)
    else:
        optimizer.step()
        assert bits(model) != before


class Onlooker:
    """A framework's wrapper: reads through to the optimizer, keeps what is assigned to itself."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self.__class__ = type("Seen", (Onlooker, type(optimizer)), {})

    def step(self, closure: Any = None) -> Any:
        return self._optimizer.step(closure)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)


@pytest.mark.parametrize("bad", PASSES)
def test_wrapped_by_a_framework(bad: str) -> None:
    zoo = Zoo()
    optimizer = Onlooker(build("SAM", "SGD", zoo))
    before = bits(zoo)
    visit(optimizer, zoo, bad)
    with pytest.warns(RuntimeWarning):
        optimizer.step()
    assert_same_bits(before, zoo)
    optimizer.zero_grad()
    zoo().backward()
    with pytest.raises(RuntimeError, match="inside perturbed"), optimizer.perturbed():
        optimizer.step()


# GradScaler


def scaled_step(
    scaler: torch.amp.GradScaler, optimizer: Any, zoo: Zoo, bad: str = "", clip: float = 0.0
) -> None:
    optimizer.zero_grad()
    scaler.scale(zoo()).backward()
    if bad in ("first", "both"):
        zoo.image.grad[0, 0, 0, 0] = math.inf
    with optimizer.perturbed():
        scaler.scale(zoo()).backward()
        if bad in ("second", "both"):
            zoo.image.grad[0, 0, 0, 0] = math.inf
    if clip:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(zoo.parameters(), clip)
    scaler.step(optimizer)
    scaler.update()


@TOLD
@pytest.mark.parametrize("clip", [0.0, 0.1])
@pytest.mark.parametrize("bad", PASSES)
@pytest.mark.parametrize(("variant", "base"), PAIRS)
def test_the_scaler_sees_the_event(variant: str, base: str, bad: str, clip: float) -> None:
    """It lowers its scale and skips the step, and no warning is added to that."""
    zoo = Zoo()
    optimizer = build(variant, base, zoo)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled_step(scaler, optimizer, zoo, clip=clip)
    assert scaler.get_scale() == 1024.0
    before, state = bits(zoo), optimizer.state_dict()
    scaled_step(scaler, optimizer, zoo, bad, clip)
    assert scaler.get_scale() == 512.0
    assert_same_bits(before, zoo)
    assert same(state, optimizer.state_dict())
    scaled_step(scaler, optimizer, zoo, clip=clip)
    assert scaler.get_scale() == 512.0
    with pytest.raises(AssertionError):
        assert_same_bits(before, zoo)


@TOLD
@pytest.mark.parametrize("clip", [0.0, 0.1])
@pytest.mark.parametrize(("variant", "base"), PAIRS)
def test_a_scaled_run_equals_the_plain_one(variant: str, base: str, clip: float) -> None:
    """Scaling by a power of two is exact, so the runs may differ by the rounding of norms only."""
    runs = []
    for scale in (1.0, 2.0**12):
        torch.manual_seed(5)
        zoo = Zoo(torch.float64)
        optimizer = build(variant, base, zoo)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for _ in range(10):
            scaled_step(scaler, optimizer, zoo, clip=clip)
        runs.append(torch.cat([p.detach().flatten() for p in zoo.parameters()]))
    torch.testing.assert_close(*runs, rtol=1e-12, atol=1e-12)


def half_run(variant: str, scale: float | None) -> Tensor:
    """How far the weights go in float16 under a scaler, or in float32 without."""
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    inputs, targets = torch.randn(5, 8, 6), torch.randint(3, (5, 8))
    start = nn.utils.parameters_to_vector(model.parameters()).detach()
    optimizer = build(variant, "SGD", model)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    for x, y in zip(inputs, targets, strict=True):

        def loss(x: Tensor = x, y: Tensor = y) -> Tensor:
            with torch.autocast("cpu", torch.float16, enabled=scale is not None):
                return scaler.scale(nn.functional.cross_entropy(model(x), y))

        optimizer.zero_grad()
        loss().backward()
        with optimizer.perturbed():
            loss().backward()
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == (scale or 1.0)
    return nn.utils.parameters_to_vector(model.parameters()).detach() - start


@TOLD
@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_equals_single_to_rounding(variant: str) -> None:
    """float16 carries 11 bits; the way of five steps agrees to two digits at least."""
    half, single = half_run(variant, 2.0**10), half_run(variant, None)
    assert 0.0 < (half - single).norm() < 0.01 * single.norm()


def test_the_loop_recovers_from_a_scale_that_is_too_large() -> None:
    """From 2**40 every gradient overflows at first; the scale falls until training starts."""
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = build("SAM", "Adam", model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    x = torch.randn(16, 4)
    before, moved = bits(model), []
    for _ in range(40):
        optimizer.zero_grad()
        for again in (False, True):
            with optimizer.perturbed() if again else warnings.catch_warnings():
                with torch.autocast("cpu", torch.float16):
                    loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
                scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        moved.append(bits(model) != before)
    assert not moved[0] and moved[-1]
    assert all(p.isfinite().all() for p in model.parameters())
    assert scaler.get_scale() < 2.0**40
