"""What other implementations do in the cases of docs/guarantees.md: measured, where installed.

The page holds the record: one column for each implementation, with its version. A column is
measured again when that version is installed; the first column, ours, always is.
"""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import io
import math
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM

PAGE = Path(__file__).parents[2] / "docs" / "guarantees.md"
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


class Ours:
    """How a loop uses it; adapters of the others override what they do differently."""

    def __init__(self, params: Any, rho: float = 0.05, lr: float = 0.1, model: Any = None) -> None:
        self.optimizer: Any = self.make(list(params), rho, lr, model)

    def make(self, params: Any, rho: float, lr: float, model: Any) -> Any:
        return SAM(SGD(params, lr=lr), rho=rho, model=model)

    def step(self, closure: Callable[[], Tensor]) -> Any:
        return self.optimizer.step(closure)

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()


class PytorchOptimizer(Ours):
    def make(self, params: Any, rho: float, lr: float, model: Any) -> Any:
        import pytorch_optimizer

        return pytorch_optimizer.SAM(params, torch.optim.SGD, rho=rho, lr=lr, momentum=0.9)

    def step(self, closure: Callable[[], Tensor]) -> Any:
        loss = closure()
        self.optimizer.step(closure)
        return loss


class UnifiedSAM(PytorchOptimizer):
    """Of the family of davda54/sam, which is not on PyPI itself."""

    def make(self, params: Any, rho: float, lr: float, model: Any) -> Any:
        import unifiedsam

        sam = unifiedsam.unifiedSAM
        return sam(params, torch.optim.SGD, rho=rho, lambd=1.0, lr=lr, momentum=0.9)


class Temperon(Ours):
    def make(self, params: Any, rho: float, lr: float, model: Any) -> Any:
        import temperon

        return temperon.Temperon(SGD(params, lr=lr), total_steps=1000, tail_frac=1.0, rho=rho)


class TorchZero(Ours):
    def make(self, params: Any, rho: float, lr: float, model: Any) -> Any:
        import torchzero as tz

        return tz.Optimizer(params, tz.m.SAM(rho), tz.m.HeavyBall(0.9), tz.m.LR(lr))


class HeavyBall(Ours):
    def make(self, params: Any, rho: float, lr: float, model: Any) -> Any:
        import heavyball

        heavyball.utils.compile_mode = None
        return heavyball.SAMWrapper(params, heavyball.SGD(params, lr=lr, beta=0.9), ball=rho)


PEERS: dict[str, tuple[str, type[Ours]]] = {
    "flatmin": ("flatmin", Ours),
    "pytorch-optimizer": ("pytorch_optimizer", PytorchOptimizer),
    "unifiedsam": ("unifiedsam", UnifiedSAM),
    "temperon": ("temperon", Temperon),
    "torchzero": ("torchzero", TorchZero),
    "heavyball": ("heavyball", HeavyBall),
}

CASES: dict[str, Callable[[type[Ours]], bool]] = {}


def case(title: str) -> Callable[[Callable[[type[Ours]], bool]], Callable[[type[Ours]], bool]]:
    def add(function: Callable[[type[Ours]], bool]) -> Callable[[type[Ours]], bool]:
        CASES[title] = function
        return function

    return add


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.branch = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, branch: bool = True) -> Tensor:
        x = torch.linspace(-1, 1, 8).view(2, 4)
        return (self.layer(x) + (self.branch(x) if branch else 0.0) - 1).square().sum()


def run(make: type[Ours], net: Net, steps: int = 1, spoil: Any = None, **options: Any) -> Any:
    """Take steps; ``spoil`` is called in each closure with the number of the call."""
    peer = make(net.parameters(), **options)
    for _ in range(steps):
        calls = iter(range(10))

        def closure(calls: Any = calls) -> Tensor:
            call = next(calls)
            peer.zero_grad()
            loss = net(branch=spoil != "branch" or call == 0)
            loss.backward()
            if callable(spoil):
                spoil(call)
            return loss

        peer.step(closure)
    return peer


def weights(net: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(net.parameters()).detach().clone()


@case("a SAM step takes the gradient at distance rho")
def same_step(make: type[Ours]) -> bool:
    net = Net()
    twin = copy.deepcopy(net)
    run(make, net, 5)
    run(Ours, twin, 5)
    return torch.allclose(weights(net), weights(twin), rtol=1e-5, atol=1e-6)


@case("`step(closure)` alone does both passes and returns the loss")
def closure_convention(make: type[Ours]) -> bool:
    net = Net()
    peer = make(net.parameters())

    def closure() -> Tensor:
        peer.zero_grad()
        loss = net()
        loss.backward()
        return loss

    expected = net().item()
    return peer.optimizer.step(closure).item() == pytest.approx(expected)


@case("an exception in the second pass leaves the weights as they were")
def exception(make: type[Ours]) -> bool:
    net = Net()
    before = weights(net)

    def spoil(call: int) -> None:
        if call == 1:
            raise KeyError

    with pytest.raises(KeyError):
        run(make, net, spoil=spoil)
    return torch.equal(before, weights(net))


def finite_after(make: type[Ours], at: int) -> bool:
    net = Net()

    def spoil(call: int) -> None:
        if call == at:
            net.layer.weight.grad[0, 0] = math.inf

    run(make, net, spoil=spoil)
    return bool(weights(net).isfinite().all())


@case("a gradient that overflows in the first pass does no harm")
def overflow_first(make: type[Ours]) -> bool:
    return finite_after(make, 0)


@case("a gradient that overflows in the second pass does no harm")
def overflow_second(make: type[Ours]) -> bool:
    return finite_after(make, 1)


@case("with `lr = 0` every bit stays when a branch is used in the first pass only")
def branch(make: type[Ours]) -> bool:
    net = Net()
    before = weights(net)
    run(make, net, 3, spoil="branch", lr=0.0)
    return torch.equal(before, weights(net))


@case("with `lr = 0` every bit stays over 50 steps")
def bits(make: type[Ours]) -> bool:
    net = Net()
    before = weights(net)
    run(make, net, 50, lr=0.0)
    return torch.equal(before, weights(net))


@case("parameters stay in their own memory")
def storage(make: type[Ours]) -> bool:
    net = Net()
    before = [p.data_ptr() for p in net.parameters()]
    run(make, net, 1)
    return before == [p.data_ptr() for p in net.parameters()]


@case("training resumes from `torch.load(weights_only=True)` bit for bit")
def resume(make: type[Ours]) -> bool:
    net = Net()
    peer = run(make, net, 3)
    file = io.BytesIO()
    torch.save(peer.optimizer.state_dict(), file)
    file.seek(0)
    twin = copy.deepcopy(net)
    other = make(twin.parameters())
    other.optimizer.load_state_dict(torch.load(file, weights_only=True))
    for one, model in ((peer, net), (other, twin)):

        def closure(one: Ours = one, model: Net = model) -> Tensor:
            one.zero_grad()
            loss = model()
            loss.backward()
            return loss

        one.step(closure)
    return torch.equal(weights(net), weights(twin))


@case("a deepcopy trains on")
def deepcopy(make: type[Ours]) -> bool:
    net = Net()
    peer = run(make, net, 2)
    twin, other = copy.deepcopy((net, peer))
    before = weights(twin)

    def closure() -> Tensor:
        other.zero_grad()
        loss = twin()
        loss.backward()
        return loss

    other.step(closure)
    return not torch.equal(before, weights(twin))


@case("with `rho = 0`, BatchNorm statistics and random stream are those of the base optimizer")
def rho_zero(make: type[Ours]) -> bool:
    """Seen without comparing bases: each step counts one batch and draws one mask."""
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 1))
    x = torch.linspace(-1, 1, 24).view(6, 4)
    state = torch.get_rng_state()
    for _ in range(3):
        copy.deepcopy(net)(x)
    expected = torch.get_rng_state()
    torch.set_rng_state(state)
    peer = make(net.parameters(), rho=0.0, model=net)

    def closure() -> Tensor:
        peer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        peer.step(closure)
    return int(net[1].num_batches_tracked) == 3 and torch.equal(expected, torch.get_rng_state())


@case("a scheduler attaches, without a warning")
def scheduler(make: type[Ours]) -> bool:
    net = Net()
    peer = make(net.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(peer.optimizer, 1, gamma=0.5)

    def closure() -> Tensor:
        peer.zero_grad()
        loss = net()
        loss.backward()
        return loss

    peer.step(closure)
    schedule.step()
    before = weights(net)
    peer.optimizer.param_groups[0]["lr"] = 0.0
    peer.optimizer.param_groups[0]["momentum"] = 0.0
    peer.step(closure)
    return torch.equal(before, weights(net))


def holds(peer: str, title: str) -> bool:
    """Whether it does; an error or a warning is a no."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".* skipped a step", RuntimeWarning)
        try:
            return CASES[title](PEERS[peer][1])
        except Exception:
            return False


def record() -> tuple[list[str], dict[str, list[str]]]:
    """The table of the page: its columns, and its rows by title."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    (head,) = [row[1:] for row in rows if row[0] == "Case"]
    return head, {row[0]: row[1:] for row in rows if row[0] in CASES}


def version(peer: str) -> str | None:
    found = importlib.util.find_spec(PEERS[peer][0])
    return importlib.metadata.version(peer) if found else None


@pytest.mark.oracle
@pytest.mark.parametrize("peer", PEERS)
def test_the_page_says_what_is_measured(peer: str) -> None:
    head, rows = record()
    at = next(i for i, column in enumerate(head) if column.split()[0] == peer)
    if peer != "flatmin" and head[at] != f"{peer} {version(peer)}":
        pytest.skip(f"the page is about {head[at]}, installed is {version(peer)}")
    measured = {title: "yes" if holds(peer, title) else "no" for title in CASES}
    assert measured == {title: rows[title][at] for title in CASES}
    if peer == "flatmin":
        assert set(measured.values()) == {"yes"}


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("adaptive", [False, True])
def test_the_step_of_pytorch_optimizer(adaptive: bool) -> None:
    """An independent implementation of the formula; its ASAM is ours with eta = 0, biases too."""
    other = pytest.importorskip("pytorch_optimizer")
    from flatmin import ASAM

    results = []
    for mine in (True, False):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
        base = torch.optim.Adam(net.named_parameters(), lr=0.01)
        if not mine:
            optimizer = other.SAM(
                net.parameters(), torch.optim.Adam, rho=0.2, adaptive=adaptive, lr=0.01
            )
        elif adaptive:
            optimizer = ASAM(base, rho=0.2, eta=0.0, biases=True)
        else:
            optimizer = SAM(base, rho=0.2)

        def closure(net: nn.Module = net, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            x = torch.linspace(-1, 1, 32, dtype=torch.float64).view(8, 4)
            loss = (net(x) - x.sum(1, keepdim=True).sin()).square().mean()
            loss.backward()
            return loss

        for _ in range(20):
            if not mine:
                closure()
            optimizer.step(closure)
        results.append(weights(net))
    # The other rounds the norm to float32.
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


def test_every_case_is_on_the_page() -> None:
    head, rows = record()
    assert list(rows) == list(CASES)
    assert [column.split()[0] for column in head] == list(PEERS)
    assert all(re.fullmatch("yes|no", cell) for row in rows.values() for cell in row)
