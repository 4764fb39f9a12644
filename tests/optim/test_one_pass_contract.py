"""What every optimizer promises, for those that take one pass: in the loop that is theirs."""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from cases import BASES, ONE_PASS, Zoo, assert_same_bits, bits, same

PAIRS = [
    pytest.param(variant, base, marks=[] if base in ("SGD", "AdamW") else pytest.mark.slow)
    for variant, base in itertools.product(ONE_PASS, BASES)
    if variant != "MSAM" or base not in ("RMSprop", "Adadelta")
]
EVERY_PAIR = pytest.mark.parametrize(("variant", "base"), PAIRS)
EVERY_VARIANT = pytest.mark.parametrize("variant", ONE_PASS)


def build(variant: str, base: str, module: nn.Module, **options: Any) -> Any:
    of_base = {key: options.pop(key) for key in ("lr", "eps") if key in options}
    return ONE_PASS[variant](BASES[base](module.named_parameters(), **of_base), **options)


def step(optimizer: Any, zoo: nn.Module) -> None:
    optimizer.zero_grad()
    with optimizer.perturbed():
        zoo().backward()
    optimizer.step()


def zoo_of(seed: int = 0, dtype: torch.dtype = torch.float32) -> Zoo:
    torch.manual_seed(seed)
    return Zoo(dtype)


class Trip(Exception):
    """A failure of the user's."""


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@EVERY_PAIR
def test_every_bit_comes_back(variant: str, base: str, dtype: torch.dtype) -> None:
    """With ``lr = 0``: after steps, exceptions, branches left out, and gradients that overflow."""
    zoo = zoo_of(dtype=dtype)
    # In float16 the default eps is zero, and the base divides by it where the gradient is zero.
    coarse = dtype == torch.float16 and base in {"Adam", "AdamW", "RMSprop"}
    optimizer = build(variant, base, zoo, lr=0.0, **({"eps": 1e-4} if coarse else {}))
    before, moved = bits(zoo), 0
    for trouble in ("", "", "raise", "", "branch", "", "overflow", "", "freed", "", ""):
        optimizer.zero_grad()
        with suppress(Trip), optimizer.perturbed():
            moved += bits(zoo) != before
            loss = zoo(branch=trouble != "branch")
            loss.backward()
            if trouble == "raise":
                raise Trip
            if trouble == "overflow":
                zoo.image.grad[0, 0, 0, 0] = math.inf
            if trouble == "freed":
                zoo.left.data = zoo.left.data.clone()
        if trouble == "freed":
            before = bits(zoo)
        if trouble == "overflow":
            with pytest.warns(RuntimeWarning, match="skipped a step: the gradient at the pert"):
                optimizer.step()
        else:
            optimizer.step()
        assert_same_bits(before, zoo)
    assert moved >= 8


@EVERY_PAIR
def test_training_goes_on_as_if_the_batch_had_not_been(variant: str, base: str) -> None:
    zoo, spared = zoo_of(), zoo_of()
    optimizers = [build(variant, base, net) for net in (zoo, spared)]
    for i in range(6):
        if i == 3:
            optimizers[0].zero_grad()
            with optimizers[0].perturbed():
                (zoo() * math.nan).backward()
            with pytest.warns(RuntimeWarning, match="skipped a step"):
                optimizers[0].step()
        for optimizer, net in zip(optimizers, (zoo, spared), strict=True):
            step(optimizer, net)
    assert same(zoo.state_dict(), spared.state_dict())
    assert same(optimizers[0].state_dict(), optimizers[1].state_dict())


def scaled(scaler: Any, optimizer: Any, zoo: Zoo, bad: bool = False, clip: float = 0.0) -> None:
    optimizer.zero_grad()
    with optimizer.perturbed():
        scaler.scale(zoo()).backward()
        if bad:
            zoo.image.grad[0, 0, 0, 0] = math.inf
    if clip:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(zoo.parameters(), clip)
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("clip", [0.0, 0.1])
@EVERY_PAIR
def test_a_scaler(variant: str, base: str, clip: float) -> None:
    """Scaled equals plain; an overflow lowers the scale and is skipped; any scale is as good."""
    ends = []
    for scale, bad in ((1.0, False), (2.0**12, False), (2.0**12, True)):
        zoo = zoo_of(dtype=torch.float64)
        optimizer = build(variant, base, zoo)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for i in range(8):
            if bad and i == 4:
                before = bits(zoo)
                scaled(scaler, optimizer, zoo, bad=True, clip=clip)
                assert_same_bits(before, zoo)
                assert scaler.get_scale() == scale / 2
            scaled(scaler, optimizer, zoo, clip=clip)
        ends.append(torch.cat([p.detach().flatten() for p in zoo.parameters()]))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ends[0], ends[2], rtol=1e-12, atol=1e-12)


@EVERY_PAIR
def test_accumulation_in_one_block_is_the_large_batch(variant: str, base: str) -> None:
    ends = []
    for parts in (1, 3):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
        x = torch.randn(6, 6, 4, dtype=torch.float64)
        optimizer = build(variant, base, net)
        for batch in x:
            optimizer.zero_grad()
            with optimizer.perturbed():
                for part in batch.chunk(parts):
                    (net(part).square().sum() / 6).backward()
            optimizer.step()
        ends.append(nn.utils.parameters_to_vector(net.parameters()).detach())
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("closed", [False, True])
@EVERY_PAIR
def test_with_rho_zero_it_is_the_base(variant: str, base: str, closed: bool) -> None:
    """Bit for bit, with BatchNorm and dropout, the random stream and the state of the base."""

    def run(wrapped: bool) -> Any:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.4), nn.Linear(5, 2))
        optimizer: Any = BASES[base](net.named_parameters())
        if wrapped:
            optimizer = ONE_PASS[variant](optimizer, rho=0.0, model=net)
        for x in torch.randn(5, 6, 4):

            def evaluate(x: Tensor = x) -> Tensor:
                optimizer.zero_grad()
                loss = net(x).square().mean()
                loss.backward()
                return loss

            if closed:
                optimizer.step(evaluate)
            elif wrapped:
                with optimizer.perturbed():
                    evaluate()
                optimizer.step()
            else:
                evaluate()
                optimizer.step()
        return net.state_dict(), optimizer.state_dict()["state"], torch.get_rng_state()

    assert same(run(False), run(True))


@pytest.mark.parametrize("way", ["file", "deepcopy", "pickle"])
@EVERY_PAIR
def test_it_is_resumed(variant: str, base: str, way: str) -> None:
    zoo = zoo_of()
    optimizer = build(variant, base, zoo)
    for _ in range(3):
        step(optimizer, zoo)
    if way == "file":
        file = io.BytesIO()
        torch.save((zoo.state_dict(), optimizer.state_dict()), file)
        file.seek(0)
        weights, record = torch.load(file, weights_only=True)
        twin = zoo_of(1)
        twin.load_state_dict(weights)
        other = build(variant, base, twin)
        other.load_state_dict(record)
        BASES[base](zoo_of(2).named_parameters()).load_state_dict(record)
    elif way == "deepcopy":
        twin, other = copy.deepcopy((zoo, optimizer))
    else:
        twin, other = pickle.loads(pickle.dumps((zoo, optimizer)))
    for _ in range(3):
        step(optimizer, zoo)
        step(other, twin)
    assert same(zoo.state_dict(), twin.state_dict())
    assert same(optimizer.state_dict(), other.state_dict())


@EVERY_VARIANT
def test_schedulers_groups_and_hooks(variant: str) -> None:
    zoo = zoo_of(dtype=torch.float64)
    trained = [(n, p) for n, p in zoo.named_parameters() if p.requires_grad]
    groups = [{"params": trained[:2], "sam_rho": 0.0}, {"params": trained[2:]}]
    optimizer: Any = ONE_PASS[variant](BASES["SGD"](groups))
    scheduler = lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    fired: list[int] = []
    optimizer.register_step_post_hook(lambda *_: fired.append(1))
    rates = []
    for _ in range(4):
        start = {n: p.detach().clone() for n, p in trained}
        optimizer.zero_grad()
        with optimizer.perturbed():
            still = {n for n, p in trained if torch.equal(p, start[n])}
            zoo().backward()
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[1]["lr"])
    assert {n for n, _ in trained[:2]} <= still and not {n for n, _ in trained[2:]} <= still
    assert rates == [0.05, 0.025, 0.025, 0.0125]
    assert len(fired) == 4
    shift = torch.cat([(p - start[n]).flatten() for n, p in trained])
    assert shift.isfinite().all()


@EVERY_VARIANT
def test_the_radius_is_rho_over_all_that_moves(variant: str) -> None:
    zoo = zoo_of(dtype=torch.float64)
    optimizer = build(variant, "SGD", zoo, rho=0.25)
    step(optimizer, zoo)
    start = {n: p.detach().clone() for n, p in zoo.named_parameters()}
    optimizer.zero_grad()
    with optimizer.perturbed():
        moved = [(p - start[n]).flatten() for n, p in zoo.named_parameters()]
    assert torch.cat(moved).norm().item() == pytest.approx(0.25, rel=1e-12)
    assert optimizer.report.shift_norm == pytest.approx(0.25)


@EVERY_VARIANT
def test_several_bases(variant: str) -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)).double()
    twin = copy.deepcopy(net)

    def bases(model: nn.Module) -> list[torch.optim.Optimizer]:
        named = list(model.named_parameters())
        return [
            torch.optim.SGD([(n, p) for n, p in named if p.ndim == 2], lr=0.1, momentum=0.9),
            torch.optim.SGD([(n, p) for n, p in named if p.ndim != 2], lr=0.1, momentum=0.9),
        ]

    several = ONE_PASS[variant](bases(net))
    one = ONE_PASS[variant](torch.optim.SGD(twin.named_parameters(), lr=0.1, momentum=0.9))
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4)
    for _ in range(4):
        for optimizer, model in ((several, net), (one, twin)):
            optimizer.zero_grad()
            with optimizer.perturbed():
                model(x).square().sum().backward()
            optimizer.step()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@EVERY_VARIANT
def test_a_compiled_model(variant: str) -> None:
    torch._dynamo.reset()
    ends = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
        called = torch.compile(net, backend="eager") if compiled else net
        optimizer = ONE_PASS[variant](BASES["SGD"](net.named_parameters()), model=called)
        for x in torch.randn(4, 6, 4):
            optimizer.zero_grad()
            with optimizer.perturbed():
                called(x).square().mean().backward()
            optimizer.step()
        ends.append(nn.utils.parameters_to_vector(net.parameters()).detach())
    assert torch.equal(*ends)


@EVERY_VARIANT
def test_one_autocast_around_the_block(variant: str) -> None:
    """Nothing half-precise of other weights is left in its cache."""
    torch.manual_seed(0)
    net = nn.Linear(8, 4)
    optimizer = ONE_PASS[variant](torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9), rho=1.0)
    x, outputs = torch.randn(6, 8), []
    for _ in range(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(net(x).float())
            with optimizer.perturbed():
                inside = net(x).float()
                inside.square().mean().backward()
            outputs.append(net(x).float())
        optimizer.step()
    assert all(torch.equal(outputs[0], other) for other in outputs)
    assert not torch.equal(inside, outputs[0])
