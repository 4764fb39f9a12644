"""What a step allocates, and what is kept from step to step."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import ONE_PASS, VARIANTS
from flatmin import ASAM, SAM, WSAM
from flatmin.ball import Ball
from flatmin.optim import _spare
from flatmin.optim._in_place import InPlace
from flatmin.optim._workspace import Workspace
from flatmin.scale import Elementwise, Identity

EVERY = {**VARIANTS, **ONE_PASS}
SMALL = [(64, 64)] * 60
LARGE = [(600, 1000), (300_000,), (40, 50, 60, 3)]

# In a process whose malloc gives back whatever is freed, so that nothing is at hand by luck.
PAGES = """
import json, math, resource, sys
import torch
from cases import ONE_PASS, VARIANTS

EVERY = {**VARIANTS, **ONE_PASS}
faulty = sys.argv[1] == "faulty"
if faulty:
    from flatmin.optim._workspace import Workspace
    Workspace.begin = Workspace.clear


class Still(torch.optim.SGD):
    def step(self, closure=None):
        pass


def pages(variant, shapes, p):
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    base = Still([(f"{i}.weight", q) for i, q in enumerate(params)], lr=0.1, momentum=0.9)
    for q in params:
        base.state[q]["momentum_buffer"] = torch.randn_like(q)
    optimizer = EVERY[variant](base, p=p)
    found = []
    for _ in range(6):
        first, second = ([torch.randn_like(q) for q in params] for _ in range(2))
        for q in params:
            q.grad = None if optimizer.one_pass else first.pop(0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        with optimizer.perturbed():
            for q in params:
                q.grad = second.pop(0)
        optimizer.step()
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        for q in params:
            q.grad = None
    return sorted(found[3:])[1]


torch.set_num_threads(1)
torch.manual_seed(0)
orders = (1.0, 1.5, 2.0, math.inf) if sys.argv[1] == "every order" else (2.0,)
print(json.dumps({
    f"{variant}, {name}, p = {p}": pages(variant, shapes, p)
    for variant in EVERY
    for name, shapes in json.loads(sys.argv[2]).items()
    for p in orders
}))
"""


def fresh_pages(mode: str) -> dict[str, int]:
    folders = os.pathsep.join(["tests", *sys.path])
    environment = {
        **os.environ,
        "PYTHONPATH": folders,
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    sets = json.dumps({"small": SMALL, "large": LARGE})
    command = [sys.executable, "-c", PAGES, mode, sets]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return counts


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults as Linux does")
@pytest.mark.parametrize("mode", ["p = 2", "every order"])
def test_a_step_takes_no_fresh_memory(mode: str) -> None:
    """Each of these sets is 1 to 5 MiB, hundreds of pages."""
    counts = fresh_pages(mode)
    assert len(counts) == (2 if mode == "p = 2" else 8) * len(EVERY)
    assert {name: count for name, count in counts.items() if count > 64 + 5} == {}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults as Linux does")
def test_a_workspace_that_forgets_is_noticed() -> None:
    counts = fresh_pages("faulty")
    # With one pass less, small blocks that were just freed may lie at hand by luck: for a quarter
    # at most, while one alone would be noticed.
    # Large weights move into the first gradient, and leave nothing to forget.
    counted = {
        name: n for name, n in counts.items() if name.split(",")[0] in VARIANTS and "small" in name
    }
    assert counted
    assert sum(n <= 200 for n in counted.values()) <= len(counted) // 4, counted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("scale", [Identity(), Elementwise(), Elementwise(0.01)], ids=str)
def test_in_place_is_the_ball_to_the_last_bit(scale: Any, p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ball = Ball(0.3, p, scale)
    w, g = torch.randn(7, 5).to(dtype), torch.randn(7, 5).to(dtype)
    g[2, 3] = g[4, 1] = 9.0  # p = 1 has something to share
    w[2, 3], w[4, 1] = 2.0, -2.0
    wide_w, wide_g = ({"x": t if dtype == torch.float64 else t.float()} for t in (w, g))
    in_place = InPlace(ball, "x", Workspace())
    support = in_place.support([w], [g])
    assert torch.equal(support, ball.plain_support(wide_w, wide_g))
    (direction,) = in_place.direction([w], [g], support)
    assert torch.equal(direction, ball.direction(wide_w, wide_g, support)["x"])
    if p == 1.0:
        ties = in_place.ties([w], [g], support)
        assert ties == 2 and ties == ball.ties(wide_w, wide_g, support)


def trained(build: Callable[[Any], Any], shapes: Any, steps: int = 2) -> tuple[Any, list[Any]]:
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    optimizer = build(torch.optim.SGD([(f"{i}.weight", q) for i, q in enumerate(params)], lr=0.1))
    for _ in range(steps):
        for q in params:
            q.grad = torch.randn_like(q)
        with optimizer.perturbed():
            for q in params:
                q.grad = torch.randn_like(q)
        optimizer.step()
    return optimizer, params


def kept(optimizer: Any) -> int:
    return int(optimizer._workspace.nbytes)


def test_as_much_is_kept_as_the_docs_say() -> None:
    size = 4 * sum(torch.Size(shape).numel() for shape in LARGE)
    piece = 4 << 18
    # The shifted weights take the first gradients: nothing is kept, but scratch for a piece of
    # what is scaled, one for the factors and one for the direction.
    assert kept(trained(SAM, LARGE)[0]) == 0
    assert kept(trained(ASAM, LARGE)[0]) == 2 * piece
    # Here the first gradient is needed for something else.
    assert size <= kept(trained(WSAM, LARGE)[0]) <= size + piece
    small = 4 * 60 * 64 * 64
    assert kept(trained(ASAM, SMALL)[0]) == small + 2 * min(small, piece)


def test_what_is_kept_is_in_no_state_and_no_copy() -> None:
    optimizer, _ = trained(ASAM, LARGE)
    state = optimizer.state_dict()
    assert len(pickle.dumps(state)) < 4000
    assert len(pickle.dumps(optimizer)) < 4 * sum(torch.Size(s).numel() for s in LARGE) + 9000
    assert kept(copy.deepcopy(optimizer)) == 0
    optimizer.free_workspace()
    assert kept(optimizer) == 0


def test_room_follows_the_parameters() -> None:
    optimizer, params = trained(WSAM, LARGE)
    before = kept(optimizer)
    (group,) = optimizer.param_groups
    group["params"], group["param_names"] = [params[1]], ["1.weight"]
    for _ in range(2):
        params[1].grad = torch.randn_like(params[1])
        with optimizer.perturbed():
            params[1].grad = torch.randn_like(params[1])
        optimizer.step()
    assert kept(optimizer) < before / 2


def test_the_workspace_stays_while_the_weights_are_away() -> None:
    optimizer, params = trained(ASAM, SMALL)
    for q in params:
        q.grad = torch.randn_like(q)
    with optimizer.perturbed(), pytest.raises(RuntimeError, match="inside perturbed"):
        optimizer.free_workspace()


HOLDERS: dict[str, Callable[[Tensor], Any]] = {
    "a name": lambda p: p.grad,
    "a view": lambda p: p.grad.view(-1),  # type: ignore[union-attr]
    "numpy": lambda p: p.grad.numpy(),  # type: ignore[union-attr]
    "dlpack": lambda p: torch.utils.dlpack.to_dlpack(p.grad),  # type: ignore[attr-defined]
    "a graph": lambda p: (p.grad * p).sum(),
}


def value_of(held: Any, p: Tensor) -> Tensor:
    """What the holder sees of the gradient."""
    if isinstance(held, Tensor) and held.grad_fn is not None:
        return torch.autograd.grad(held, p)[0]
    if not isinstance(held, Tensor):
        held = torch.from_dlpack(held) if "capsule" in str(held) else torch.from_numpy(held)
    return held.reshape(p.shape)


@pytest.mark.parametrize("variant", ["SAM", "ASAM", "WSAM", "FriendlySAM"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_gradient_that_somebody_looks_at_stays_what_it_is(holder: str, variant: str) -> None:
    """Else a penalty on the first gradient, or a logged one, would be of old weights."""
    p = nn.Parameter(torch.randn(600, 600))
    base = torch.optim.SGD([("x.weight", p)], lr=0.1, momentum=0.9)
    optimizer: Any = VARIANTS[variant](base)
    for _ in range(2):
        p.grad = torch.randn_like(p)
        expected = p.grad.clone()
        held = HOLDERS[holder](p)
        with optimizer.perturbed():
            seen = value_of(held, p).clone()
            p.grad = torch.randn_like(p)
        assert torch.equal(seen, expected)
        optimizer.step()


@pytest.mark.parametrize("holder", HOLDERS)
def test_looking_away_is_noticed(holder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_spare, "_unheld", lambda: (1 << 30, 1 << 30))
    monkeypatch.setattr(_spare, "is_shared", lambda grad: False)
    with pytest.raises((AssertionError, RuntimeError)):
        test_a_gradient_that_somebody_looks_at_stays_what_it_is(holder, "ASAM")
