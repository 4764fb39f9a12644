"""A measure that walks takes fresh memory for what autograd makes, and for nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin import Ball, Elementwise, EmpiricalLoss, FunctionObjective, Identity, _room
from flatmin import sharpness as measures
from flatmin._types import Params
from slowly import slow_but

# In a process whose malloc gives back whatever is freed, so that nothing is at hand by luck.
PAGES = """
import json, resource, sys
import torch
from torch import nn
from flatmin import Ball, Elementwise, EmpiricalLoss, _room
from flatmin import sharpness as measures

if sys.argv[1] == "faulty":
    _room.is_seen = lambda t: True

torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(*(nn.Linear(400, 400, bias=False) for _ in range(2)))
x, y = torch.randn(4, 400), torch.randn(4, 400)
live = list(model.parameters())
loss = EmpiricalLoss(model, nn.functional.mse_loss, [(x, y)])
w, ball = loss.params, Ball(0.01, scale=Elementwise())


def gradients(steps):
    for _ in range(steps):
        torch.autograd.grad(nn.functional.mse_loss(model(x), y), live)


def products(steps):
    for _ in range(steps):
        value = nn.functional.mse_loss(model(x), y)
        grads = torch.autograd.grad(value, live, create_graph=True)
        along = sum((g * v).sum() for g, v in zip(grads, w.values()))
        torch.autograd.grad(along, live)


def signs(steps):
    room = [torch.empty_like(t) for t in w.values()]
    for _ in range(steps):
        for t in room:
            t.bernoulli_(0.5)


walks = {
    "gradients": gradients,
    "products": products,
    "signs": signs,
    "worst": lambda n: measures.worst_case_sharpness(loss, w, ball, steps=n),
    "average": lambda n: measures.average_sharpness(loss, w, ball, samples=n),
    "critical": lambda n: measures.critical_sharpness(loss, w, start=1e-9, steps=n),
    "trace": lambda n: measures.hessian_trace(loss, w, samples=n),
    "eigenvalue": lambda n: measures.top_eigenvalues(loss, w, steps=n, tolerance=0.0),
    "density": lambda n: measures.spectral_density(loss, w, samples=n, steps=1),
}


def pages(walk, steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    walk(steps)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


found = {}
for name, walk in walks.items():
    walk(4)
    found[name] = (pages(walk, 12) - pages(walk, 4)) / 8
print(json.dumps(found))
"""

SIZE = 2 * 400 * 400 * 4 / 4096
"""Pages of all parameters; of a vector in float64 twice as many."""


@cache
def pages_a_step(mode: str) -> dict[str, float]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    command = [sys.executable, "-W", "ignore", "-c", PAGES, mode]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def beyond_autograd(mode: str) -> dict[str, float]:
    found = pages_a_step(mode)
    own = {
        "worst": found["gradients"],
        "average": 0.0,
        "critical": 0.0,
        # torch 2.6 draws signs as integers first, in memory of its own.
        "trace": found["products"] + found["signs"],
        "eigenvalue": found["products"] + 2 * SIZE,  # a vector of the basis, kept
        "density": found["products"] + found["signs"],
    }
    return {name: (found[name] - pages) / SIZE for name, pages in own.items()}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults as Linux does")
def test_no_step_copies_all_parameters_into_fresh_memory() -> None:
    beyond = beyond_autograd("as it is")
    assert {name: pages for name, pages in beyond.items() if pages > 0.25} == {}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults as Linux does")
def test_a_room_that_forgets_is_noticed() -> None:
    beyond = beyond_autograd("faulty")
    assert {name: pages for name, pages in beyond.items() if pages <= 1.0} == {}


# Nobody notices but by the clock


def network(dtype: torch.dtype = torch.float32) -> EmpiricalLoss:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 250), nn.Tanh(), nn.Linear(250, 3)).to(dtype)
    x, y = torch.randn(8, 300, dtype=dtype), torch.randint(3, (8,))
    return EmpiricalLoss(model, nn.functional.cross_entropy, [(x[:5], y[:5]), (x[5:], y[5:])])


BALLS = [
    Ball(0.3, p, scale) for p in (2.0, float("inf"), 3.0) for scale in (Identity(), Elementwise())
]
WALKS: dict[str, Callable[..., Any]] = {
    **{
        f"worst {ball.p} {type(ball.scale).__name__}": lambda f, m, w, b=ball: f(
            m.worst_case_sharpness
        )(w, w.params, b, steps=5, restarts=1)
        for ball in BALLS
    },
    **{
        f"average {ball.p} {type(ball.scale).__name__}": lambda f, m, w, b=ball: f(
            m.average_sharpness
        )(w, w.params, b, samples=4)
        for ball in BALLS
    },
    "critical": lambda f, m, w: f(m.critical_sharpness)(w, w.params),
    "trace": lambda f, m, w: f(m.hessian_trace)(w, w.params, samples=3),
    "eigenvalues": lambda f, m, w: f(m.top_eigenvalues)(w, w.params, k=2, steps=8),
    "density": lambda f, m, w: f(m.spectral_density)(w, w.params, samples=2, steps=4),
}


@pytest.mark.parametrize("dtype", slow_but([torch.float32, torch.float64], torch.float32))
@pytest.mark.parametrize("walk", WALKS)
def test_the_numbers_are_those_of_fresh_memory_to_the_last_bit(
    walk: str, dtype: torch.dtype
) -> None:
    loss = network(dtype)
    kept = WALKS[walk](lambda measure: measure, measures, loss)
    fresh = WALKS[walk](lambda measure: measure.__wrapped__, measures, loss)
    assert kept == fresh


class Collector:
    """An objective of a stranger, who keeps what he is given."""

    def __init__(self) -> None:
        self.inner = FunctionObjective(lambda w: w["x"].sin().sum() + w["y"].square().sum())
        self.given: list[tuple[Tensor, Tensor]] = []

    def keep(self, params: Params) -> Params:
        self.given += [(t.view(-1), t.clone().view(-1)) for t in params.values()]
        return params

    def value(self, params: Params) -> Tensor:
        return self.inner.value(self.keep(params))

    def value_and_grad(self, params: Params) -> tuple[Tensor, dict[str, Tensor]]:
        loss, grad = self.inner.value_and_grad(self.keep(params))
        self.keep(grad)
        return loss, grad

    def hvp(self, params: Params, vector: Params) -> dict[str, Tensor]:
        return self.inner.hvp(self.keep(params), self.keep(vector))


def test_what_somebody_keeps_stays_what_it_is() -> None:
    w = {"x": torch.randn(300, 200), "y": torch.randn(50)}
    stranger = Collector()
    measures.worst_case_sharpness(stranger, w, Ball(0.3), steps=6)
    measures.average_sharpness(stranger, w, Ball(0.3), samples=5)
    measures.hessian_trace(stranger, w, samples=5)
    assert len(stranger.given) > 40
    assert all(torch.equal(seen, was) for seen, was in stranger.given)


def test_to_look_away_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_room, "is_seen", lambda t: False)
    with pytest.raises(AssertionError):
        test_what_somebody_keeps_stays_what_it_is()


@pytest.mark.parametrize("watcher", ["a name", "a view", "numpy", "dlpack", "its storage"])
def test_memory_that_somebody_looks_at_is_not_given_out_again(watcher: str) -> None:
    looks: dict[str, Callable[[Tensor], Any]] = {
        "a name": lambda t: t,
        "a view": lambda t: t[3:],
        "numpy": lambda t: t.numpy(),
        "dlpack": lambda t: torch.utils.dlpack.to_dlpack(t),  # type: ignore[attr-defined]
        "its storage": lambda t: t.untyped_storage(),
    }
    one = torch.ones(1 << 14)
    with _room.walking():
        first = _room.copies([one, one])
        held, place = looks[watcher](first[1]), first[0].data_ptr()
        del first
        second = _room.copies([one, one])
        assert second[0].data_ptr() != place
        del held
        third = _room.copies([one, one])
        assert third[0].data_ptr() == place
    assert _room._here.room is None
