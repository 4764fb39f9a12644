"""Loops that strangers write, second part: each was a wrong result without a word."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin import ASAM, GSAM, MSAM, SAM, WSAM

X = torch.randn(16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = torch.arange(16) % 3


class Adapted(nn.Module):
    """LoRA at its beginning: the second factor is zero, so the gradient of the first one is."""

    def __init__(self) -> None:
        super().__init__()
        self.fixed = nn.Linear(5, 3).double().requires_grad_(False)
        self.a = nn.Parameter(torch.randn(5, 2, dtype=torch.float64))
        self.b = nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))

    def loss(self, rows: slice = slice(None)) -> Tensor:
        return cross_entropy(self.fixed(X[rows]) + X[rows] @ self.a @ self.b, Y[rows])

    def around(self, kind: Any = SAM, **options: Any) -> Any:
        return kind(torch.optim.SGD([self.a, self.b], lr=0.1), 0.05, **options)


def test_unscaled_where_the_first_gradient_is_zero() -> None:
    model = Adapted()
    optimizer, scaler = model.around(), torch.amp.GradScaler("cpu")
    scaler.scale(model.loss()).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="were unscaled before"), optimizer.perturbed():
        pass


def test_a_closure_that_adds_where_the_first_gradient_is_zero() -> None:
    model = Adapted()
    optimizer = model.around()
    model.loss(slice(0, 8)).backward()

    def closure() -> Tensor:
        loss = model.loss(slice(8, 16))
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="the closure added"):
        optimizer.step(closure)


@pytest.mark.parametrize("heads_first", [True, False])
def test_a_block_for_each_head(heads_first: bool) -> None:
    """Whichever is watched, the gradients of the head before are not lost."""
    heads, trunk = nn.ModuleList([nn.Linear(8, 3), nn.Linear(8, 3)]), nn.Linear(5, 8)
    parts = [*heads.parameters(), *trunk.parameters()]
    params = parts if heads_first else [*trunk.parameters(), *heads.parameters()]
    optimizer = SAM(torch.optim.SGD(params, lr=0.1), 0.05)

    def backward(task: int) -> None:
        cross_entropy(heads[task](trunk(X.float()).tanh()), Y).backward()

    backward(0)
    with optimizer.perturbed():
        backward(0)
    backward(1)
    with pytest.raises(RuntimeError, match=r"lose them.*micro_batches"), optimizer.perturbed():
        pass
    optimizer.zero_grad()
    with optimizer.micro_batches():
        for task in (0, 1):
            backward(task)
            with optimizer.perturbed():
                backward(task)
    assert all(p.grad is not None for p in params)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3)
    return nn.Sequential(*layers).double()


def logged(model: nn.Module, _: Any) -> Tensor:
    (model(X).argmax(1) == Y).double().mean()
    return cross_entropy(model(X), Y)


def distilled(model: nn.Module, _: Any) -> Tensor:
    target = model(X.flip(1)).detach().softmax(1)
    return cross_entropy(model(X), target)


def labeled_by_itself(model: nn.Module, _: Any) -> Tensor:
    with torch.no_grad():
        target = model(X.flip(1)).softmax(1)
    return cross_entropy(model(X), target)


def attacked(model: nn.Module, clear: Callable[[], None]) -> Tensor:
    x = X.clone().requires_grad_()
    cross_entropy(model(x), Y).backward()
    assert x.grad is not None
    near = (x + 0.1 * x.grad.sign()).detach()
    clear()
    return cross_entropy(model(near), Y)


@pytest.mark.parametrize("loss", [logged, distilled, labeled_by_itself, attacked])
@pytest.mark.parametrize("around", ["a block", "a closure"])
def test_what_the_loss_calls_beside_is_repeated(loss: Any, around: str) -> None:
    """With rho = 0 a step is the base's, masks and all."""
    ends = []
    for wrapped in (True, False):
        model = network()
        base = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = SAM(base, 1e-300, model=model) if wrapped else base
        torch.manual_seed(3)

        def closure(optimizer: Any = optimizer, model: Any = model) -> Tensor:
            optimizer.zero_grad()
            value = loss(model, optimizer.zero_grad)
            value.backward()
            return value

        for _ in range(3):
            if isinstance(optimizer, SAM) and around == "a block":
                closure()
                with optimizer.perturbed():
                    loss(model, optimizer.zero_grad).backward()
                optimizer.step()
            else:
                optimizer.step(closure)
        ends.append(model[0].weight.detach())
    assert torch.equal(*ends)


def test_zeros_by_choice_stay_zeros() -> None:
    """What is unused decays in the base alone; it does so here."""
    ends = []
    for wrapped in (True, False):
        torch.manual_seed(0)
        model = nn.ModuleList([nn.Linear(5, 3), nn.Linear(5, 3)]).double()
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        optimizer = SAM(base, 1e-300) if wrapped else base
        for i in range(6):
            optimizer.zero_grad(set_to_none=False)
            cross_entropy(model[i % 2](X), Y).backward()
            if isinstance(optimizer, SAM):
                with optimizer.perturbed():
                    cross_entropy(model[i % 2](X), Y).backward()
            optimizer.step()
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*ends)


def test_cleared_by_zeros_before_the_block() -> None:
    model = nn.Linear(5, 3).double()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), 0.5)
    cross_entropy(model(X), Y).backward()
    optimizer.zero_grad(set_to_none=False)
    with pytest.warns(RuntimeWarning, match="were all zero"), optimizer.perturbed():
        cross_entropy(model(X), Y).backward()


class Stochastic(nn.Module):
    """Leaves out a layer by numbers of its own."""

    def __init__(self, own: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.l, self.b = nn.Linear(5, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.own = own

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.own, SimpleNamespace):
            self.own.calls += 1
            skip = self.own.calls % 2
        elif isinstance(self.own, dict):
            self.own["calls"] += 1
            skip = self.own["calls"] % 2
        else:
            skip = (self.own.random() if hasattr(self.own, "random") else self.own.rand()) < 0.5
        h = self.a(x).relu()
        return self.b(h if skip else h + self.l(h).relu())


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.random.default_rng(0),
        lambda: np.random.RandomState(0),
        lambda: random.Random(0),
        lambda: collections.Counter(),
        lambda: collections.defaultdict(int),
        lambda: SimpleNamespace(calls=0),
    ],
    ids=["Generator", "RandomState", "Random", "Counter", "defaultdict", "SimpleNamespace"],
)
def test_numbers_of_a_modules_own_are_repeated(make: Callable[[], Any]) -> None:
    ends = []
    for wrapped in (True, False):
        model = Stochastic(make()).double()
        base = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = SAM(base, 1e-300, model=model) if wrapped else base
        for _ in range(4):
            optimizer.zero_grad()
            cross_entropy(model(X), Y).backward()
            if isinstance(optimizer, SAM):
                with optimizer.perturbed():
                    cross_entropy(model(X), Y).backward()
            optimizer.step()
        ends.append(model.b.weight.detach())
    assert torch.equal(*ends)


def test_a_warm_up_with_the_base_alone_keeps_nothing() -> None:
    model = network()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model=model)
    for _ in range(3):
        base.zero_grad()
        cross_entropy(model(X), Y).backward()
        base.step()
    assert not optimizer._replay._used and not optimizer._replay._calls


def test_a_block_that_was_given_up_leaves_nothing_to_the_next_step() -> None:
    ends = []
    for wrapped in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(5, 3).double()
        base = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = WSAM(base, 0.5) if wrapped else base
        if isinstance(optimizer, WSAM):
            cross_entropy(model(X), Y).backward()
            with optimizer.perturbed():
                cross_entropy(model(X), Y).backward()
            model.zero_grad()
        cross_entropy(model(X), Y).backward()
        optimizer.step()
        ends.append(model.weight.detach())
    assert torch.equal(*ends)


def test_a_step_that_a_scaler_skipped_does_not_skip_the_next() -> None:
    model = nn.Linear(5, 3)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), 0.05)
    scaler, before = torch.amp.GradScaler("cpu", init_scale=8.0), model.weight.detach().clone()

    def loss() -> Tensor:
        return scaler.scale(cross_entropy(model(X.float()), Y))

    (loss() * float("inf")).backward()
    with optimizer.perturbed():
        loss().backward()
    scaler.step(optimizer)
    scaler.update()
    model.zero_grad()
    loss().backward()
    scaler.step(optimizer)
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize("count", [3, 4, 6])
def test_parameters_in_one_place_are_shifted_by_the_sum(count: int) -> None:
    params = [nn.Parameter(torch.randn(5, dtype=torch.float64)) for _ in range(count)]
    params[1].data = params[0].data
    named = [(f"w{i}", p) for i, p in enumerate(params)]
    optimizer = ASAM(torch.optim.SGD(named, lr=0.0), rho=0.3, eta=0.0)
    before = [p.detach().clone() for p in params]
    for i, p in enumerate(params):
        p.grad = (i + 1.0) * p.detach().cos()
    t = [w.abs() for w in before]
    v = [a * p.grad for a, p in zip(t, params, strict=True)]
    norm = torch.cat(v).norm()
    shifts = [0.3 * a * one / norm for a, one in zip(t, v, strict=True)]
    with optimizer.perturbed():
        moved = params[0].detach() - before[0]
    torch.testing.assert_close(moved, shifts[0] + shifts[1], rtol=1e-12, atol=1e-14)


def test_gradients_of_any_size_that_the_type_holds() -> None:
    x = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = SAM(torch.optim.SGD([x], lr=1e-41), rho=0.1)
    (x.square().sum() * 1e40).backward()
    with optimizer.perturbed():
        (x.square().sum() * 1e40).backward()
    optimizer.step()
    torch.testing.assert_close(x[0].item(), 1.0 - 0.2 * (1.0 + 0.1 / 3**0.5), rtol=1e-12, atol=0)

    g, s = torch.tensor([1e25, 1e25]), torch.tensor([2e25, -1e25])
    w = nn.Parameter(torch.zeros(2))
    optimizer = GSAM(torch.optim.SGD([w], lr=1e-25), 0.1, alpha=1.0)
    w.grad = g.clone()
    with optimizer.perturbed():
        w.grad = s.clone()
    optimizer.step()
    # ⟨g, s⟩ / ‖s‖² = 1/5; s − (g − s / 5) = (1.4, −2.2)
    torch.testing.assert_close(w.detach(), torch.tensor([-1.4, 2.2]))


def test_what_is_frozen_meanwhile_takes_no_part_of_the_momentum() -> None:
    model = network()
    optimizer = MSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), 0.3)
    for turn in range(3):
        if turn == 2:
            model[0].requires_grad_(False)
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.zero_grad()
        with optimizer.perturbed():
            shifts = [
                (p.detach() - old).norm().item()
                for p, old in zip(model.parameters(), before, strict=True)
            ]
            cross_entropy(model(X), Y).backward()
        optimizer.step()
    assert shifts[:2] == [0.0, 0.0]
    assert sum(shift**2 for shift in shifts) == pytest.approx(0.3**2, rel=1e-9)


def test_gradients_that_are_assigned() -> None:
    """``autograd.grad`` adds nothing to those in place: closures and loops are as usual."""
    ends = []
    for assigned in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(5, 3).double()
        optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), 0.5)

        def closure(
            optimizer: Any = optimizer, model: Any = model, assigned: bool = assigned
        ) -> Any:
            loss = cross_entropy(model(X), Y)
            if not assigned:
                optimizer.zero_grad()
                loss.backward()
                return loss
            params = list(model.parameters())
            for p, grad in zip(params, torch.autograd.grad(loss, params), strict=True):
                p.grad = grad
            return loss

        for _ in range(2):
            optimizer.step(closure)
        for _ in range(2):
            closure()
            with optimizer.perturbed():
                closure()
            optimizer.step()
        ends.append(model.weight.detach())
    assert torch.equal(*ends)
