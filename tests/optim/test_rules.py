"""Rules of when to perturb: in which steps, how far, and what they cost."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import same
from flatmin import ASAM, SAM, AsyncSAM, Every, FollowingLR, LastPart, WhenLarge, WithProbability
from flatmin.optim import Moment, When, only_norms, perturb_only


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)
    return nn.Sequential(*layers).double()


def loss_of(model: nn.Module, step: int = 0) -> Tensor:
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3) * (1 + math.sin(step))
    return (model(x) - 1.0).square().mean()


def asking(optimizer: Any, passes: Callable[[], Tensor]) -> None:
    optimizer.zero_grad()
    passes()
    if optimizer.due:
        with optimizer.perturbed():
            passes()
    optimizer.step()


def closure(optimizer: Any, passes: Callable[[], Tensor]) -> None:
    def evaluate() -> Tensor:
        optimizer.zero_grad()
        return passes()

    optimizer.step(evaluate)


def run(optimizer: Any, model: nn.Module, loop: Any, steps: range) -> int:
    """Train, and count the passes."""
    count = 0

    def passes(step: int) -> Tensor:
        nonlocal count
        count += 1
        loss = loss_of(model, step)
        loss.backward()
        return loss

    for step in steps:
        loop(optimizer, lambda step=step: passes(step))
    return count


# Late: the first of 10 · (1 − 0.3) = 7; every fifth: 6 in 5 steps.
COSTS: dict[str, tuple[When | None, int]] = {
    "always": (None, 20),
    "every fifth": (Every(5), 12),
    "late": (LastPart(0.3, of=10), 13),
    "late ramp": (LastPart(0.3, of=10, ramp=2), 13),
    "chance": (WithProbability(0.5, seed=1), 10 + 4),
}


@pytest.mark.parametrize("loop", [asking, closure])
@pytest.mark.parametrize("name", COSTS)
def test_the_passes_are_counted(name: str, loop: Any) -> None:
    rule, cost = COSTS[name]
    model = network()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), when=rule)
    assert run(optimizer, model, loop, range(10)) == cost


@pytest.mark.parametrize("loop", [asking, closure])
def test_one_pass_a_step_where_it_is_asked_for(loop: Any) -> None:
    model = network()
    optimizer = AsyncSAM(torch.optim.SGD(model.parameters(), lr=0.1), when=LastPart(0.3, of=10))
    if loop is closure:
        assert run(optimizer, model, loop, range(10)) == 10
    else:
        with pytest.warns(RuntimeWarning, match="needs no first pass"):
            assert run(optimizer, model, loop, range(10)) == 13


def test_the_ramp_is_in_the_radius() -> None:
    model = network()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.0), rho=0.4, when=LastPart(1.0, 9, 4))
    norms = []
    for step in range(6):
        run(optimizer, model, closure, range(step, step + 1))
        assert optimizer.report is not None
        norms.append(optimizer.report.shift_norm)
    assert norms == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4], rel=1e-12)


@pytest.mark.parametrize("fraction", [1e-9, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("of", [1, 2, 7, 100])
def test_the_last_part_is_never_empty(fraction: float, of: int) -> None:
    dues = [LastPart(fraction, of).due(Moment(step)) for step in range(of)]
    assert sum(dues) == max(1, of - round((1 - fraction) * of))
    assert dues == sorted(dues)


def test_draws_are_a_function_of_seed_and_step() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    dues = {
        seed: [WithProbability(0.3, seed).due(Moment(step)) for step in range(2000)]
        for seed in range(3)
    }
    assert torch.equal(before, torch.get_rng_state())
    assert dues[0] != dues[1] != dues[2]
    for drawn in dues.values():
        # Five deviations of the mean of 2000 draws.
        assert abs(sum(drawn) / 2000 - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 2000)
    assert all(WithProbability(1.0).due(Moment(step)) for step in range(100))


# Where the gradient is large


def by_hand(rule: WhenLarge, squares: list[float]) -> list[bool]:
    """The equations of AE-SAM, a step at a time."""
    mean = variance = 0.0
    dues = []
    for t, square in enumerate(squares):
        mean = rule.decay * mean + (1 - rule.decay) * square
        variance = rule.decay * variance + (1 - rule.decay) * (square - mean) ** 2
        c = t / rule.of * rule.last + (1 - t / rule.of) * rule.first
        dues.append(square >= mean + c * math.sqrt(variance))
    return dues


@pytest.mark.parametrize("loop", [asking, closure])
def test_large_gradients_by_hand(loop: Any) -> None:
    """The norm is over all tensors in the ball; memory goes with every step, due or not."""
    model = network()
    rule = WhenLarge(of=40, decay=0.8)
    groups = perturb_only(model, nn.Linear)
    optimizer = SAM(torch.optim.SGD(groups, lr=0.05), rho=0.05, when=rule)
    squares: list[float] = []
    dues: list[bool] = []
    for step in range(40):
        passes = 0

        def evaluate(step: int = step) -> Tensor:
            nonlocal passes
            passes += 1
            loss = loss_of(model, step)
            loss.backward()
            if passes == 1:
                grads = [p.grad for layer in (model[0], model[3]) for p in layer.parameters()]
                squares.append(sum(g.square().sum().item() for g in grads))
            return loss

        loop(optimizer, evaluate)
        dues.append(passes == 2)
    expected = by_hand(rule, squares)
    assert dues == expected
    assert 5 < sum(dues) < 35
    assert by_hand(WhenLarge(of=40, decay=0.8, last=1.0), squares) != expected


def test_its_memory_is_resumed() -> None:
    model, twin = network(), network()
    rule = WhenLarge(of=40, decay=0.8)
    optimizer = SAM(torch.optim.Adam(model.parameters()), when=rule)
    run(optimizer, model, closure, range(9))
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, record = torch.load(file, weights_only=True)
    twin.load_state_dict(weights)
    other = SAM(torch.optim.Adam(twin.parameters()), when=rule)
    other.load_state_dict(record)
    costs = [run(o, m, closure, range(9, 30)) for o, m in ((optimizer, model), (other, twin))]
    assert costs[0] == costs[1]
    assert same(model.state_dict(), twin.state_dict())


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_gradient_that_is_not_finite_is_looked_at_and_forgotten(bad: float) -> None:
    model = network()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), when=WhenLarge(of=40))
    run(optimizer, model, asking, range(5))
    before = {key: optimizer.param_groups[0][key] for key in WhenLarge.memory}
    optimizer.zero_grad()
    (loss_of(model) * bad).backward()
    assert optimizer.due
    with optimizer.perturbed():
        loss_of(model).backward()
    with pytest.warns(RuntimeWarning, match="skipped a step"):
        optimizer.step()
    assert {key: optimizer.param_groups[0][key] for key in WhenLarge.memory} == before


def test_it_has_to_be_asked_after_the_first_pass() -> None:
    model = network()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), when=WhenLarge(of=40))
    with pytest.raises(RuntimeError, match="ask `due`, and enter perturbed\\(\\), after that pass"):
        _ = optimizer.due
    loss_of(model).backward()
    with (
        pytest.raises(RuntimeError, match="compares whole batches"),
        optimizer.micro_batches(),
    ):
        pass


def test_a_scaler_is_told_of() -> None:
    model = network()
    scaler = torch.amp.GradScaler("cpu")
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), when=WhenLarge(of=40))
    scaler.scale(loss_of(model)).backward()
    with optimizer.perturbed():
        scaler.scale(loss_of(model)).backward()
    with pytest.warns(RuntimeWarning, match="train in bfloat16"):
        scaler.step(optimizer)


# A radius that follows the learning rate


@pytest.mark.parametrize("kind", [SAM, ASAM])
def test_the_radius_follows_the_rate_of_each_group(kind: Any) -> None:
    """Written out: low + (high − low)(α − floor)/(peak − floor), and in proportion to a group's."""
    rule = FollowingLR(0.1, 0.6, peak=0.4, floor=0.1)
    model = network()
    named = list(model.named_parameters())
    groups = [{"params": named[:2]}, {"params": named[2:4], "sam_rho": 0.3}]
    groups += [{"params": named[4:], "sam_rho": 0.0}]
    optimizer = kind(torch.optim.SGD(groups, lr=0.4), rule)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: [1.0, 0.5, 0.25, 0.1][t])
    for step, expected in enumerate([0.6, 0.1 + 0.5 / 3, 0.1, 0.1]):
        radii = [optimizer._ball(group).rho for group in optimizer.param_groups]
        assert radii == pytest.approx([expected, expected / 2, 0.0], rel=1e-12)
        run(optimizer, model, closure, range(step, step + 1))
        if step < 3:
            scheduler.step()
    assert [group["sam_rho"] for group in optimizer.param_groups] == [0.6, 0.3, 0.0]


# A rule without effect


def test_a_rule_that_was_never_due_says_so() -> None:
    """When the optimizer is gone; not where one step was due, nor where rho is zero."""

    def train(rho: float, steps: int, rule: When) -> None:
        model = network()
        optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho, when=rule)
        run(optimizer, model, asking, range(steps))

    train(0.0, 5, LastPart(0.1, of=1000))
    train(0.1, 0, LastPart(0.1, of=1000))
    train(0.1, 6, LastPart(0.1, of=6))
    with pytest.warns(RuntimeWarning, match="due in none of the 5 steps .* count in steps"):
        train(0.1, 5, LastPart(0.1, of=1000))


# Values


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: LastPart(0.0, 10), ValueError, "fraction must be above 0 and at most 1, got 0.0"),
        (lambda: LastPart(30, 100), ValueError, "got 30; rho=0 perturbs in no step"),
        (lambda: LastPart("0.3", 10), TypeError, "fraction must be a number"),
        (lambda: LastPart(0.3, 0), ValueError, "of must be at least 1"),
        (lambda: LastPart(0.3, 10.0), TypeError, "of must be an integer"),
        (lambda: LastPart(0.3, 10, -1), ValueError, "ramp must be at least 0"),
        (lambda: WithProbability(math.nan), ValueError, "q must be above 0"),
        (lambda: WithProbability(0.5, seed=-1), ValueError, "seed must be at least 0"),
        (lambda: FollowingLR(0.2, 0.1, peak=1.0), ValueError, "high must be above 0 and at least"),
        (lambda: FollowingLR(0.0, 0.1, peak=0.0), ValueError, "peak must be above floor"),
        (lambda: FollowingLR(0.0, "1", peak=0.1), TypeError, "high must be a number"),
        (lambda: WhenLarge(-1), ValueError, "of must be at least 1"),
        (lambda: WhenLarge(9, decay=1.0), ValueError, "decay must be at least 0 and below 1"),
        (lambda: WhenLarge(9, first=math.inf), ValueError, "first must be finite"),
    ],
)
def test_bad_values(make: Callable[[], When], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("when", [5, Every, "late", lambda step: True])
def test_what_is_no_rule(when: Any) -> None:
    with pytest.raises(TypeError, match="when must be a rule such as Every"):
        SAM(torch.optim.SGD(network().parameters(), lr=0.1), when=when)


# Which


def test_all_normalization_layers_whatever_they_are_called() -> None:
    class Mine(nn.LayerNorm):
        """A kind of one."""

    class Own(nn.Module):
        """None of torch's."""

        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(2))

    model = nn.ModuleDict(
        {
            "bn": nn.Linear(2, 2),  # by its name one, and none
            "first": nn.BatchNorm1d(2),
            "second": nn.GroupNorm(1, 2),
            "third": nn.InstanceNorm2d(2, affine=True),
            "fourth": nn.Sequential(nn.SyncBatchNorm(2), Mine(2)),
            "none": nn.BatchNorm2d(2, affine=False),
            "own": Own(),
        }
    )
    names = {name.rpartition(".")[0] for name, _ in only_norms(model)[0]["params"]}
    assert names == {"first", "second", "third", "fourth.0", "fourth.1"}
    names = {name.rpartition(".")[0] for name, _ in only_norms(model, Own)[0]["params"]}
    assert names == {"first", "second", "third", "fourth.0", "fourth.1", "own"}
    with pytest.raises(TypeError, match=r"types of modules such as .*, got 'own'"):
        only_norms(model, "own")
    with pytest.raises(TypeError, match="got Linear"):
        perturb_only(model, model["bn"])
    with pytest.raises(ValueError, match="no parameter that trains"):
        only_norms(nn.Linear(2, 2))
