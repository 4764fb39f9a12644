"""Large weights move into other memory, and back: nobody may notice.

Those of SAM into that of the first gradient, which is spent; those of WSAM, which needs it, into
what the workspace lends.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import VARIANTS
from flatmin import GSAM, SAM, WSAM
from flatmin.optim import _restore, _workspace
from flatmin.optim._workspace import Workspace

SHAPES = [(600, 1000), (40_000,), (200, 100), (5, 5)]
"""In several pieces, in one, among small ones, and too small to move."""


KIND: Any = SAM


@pytest.fixture(params=[SAM, WSAM], ids=["the gradient's", "lent"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "KIND", request.param)


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def wrapped(params: list[nn.Parameter], kind: Any = None) -> Any:
    return (kind or KIND)(
        torch.optim.SGD([(f"{i}.weight", p) for i, p in enumerate(params)], lr=0.1)
    )


def give(params: list[nn.Parameter]) -> None:
    for p in params:
        p.grad = torch.randn_like(p)


def addresses(params: list[nn.Parameter]) -> list[int]:
    return [p.data_ptr() for p in params]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_weight_lies_where_it_lay(variant: str) -> None:
    params = parameters()
    optimizer = wrapped(params, VARIANTS[variant])
    at, before = addresses(params), copy.deepcopy(params)
    for _ in range(3):
        give(params)
        with optimizer.perturbed():
            assert not any(torch.equal(p, old) for p, old in zip(params, before, strict=True))
            give(params)
        assert addresses(params) == at
        assert all(torch.equal(p, old) for p, old in zip(params, before, strict=True))


def test_large_weights_move() -> None:
    """Else the tests of this file would test nothing."""
    params = parameters()
    optimizer, at = wrapped(params), addresses(params)
    give(params)
    with optimizer.perturbed():
        moved = [p.data_ptr() != old for p, old in zip(params, at, strict=True)]
    assert moved == [True, True, True, False]


def test_a_body_that_raises_leaves_every_weight_where_it_lay() -> None:
    params = parameters()
    optimizer, at, before = wrapped(params), addresses(params), copy.deepcopy(params)
    give(params)
    with pytest.raises(KeyError), optimizer.perturbed():
        params[0].data.zero_()
        raise KeyError
    assert addresses(params) == at
    assert all(torch.equal(p, old) for p, old in zip(params, before, strict=True))


WATCHERS: dict[str, Callable[[nn.Parameter], Any]] = {
    "an alias": lambda p: p.data,
    "a view": lambda p: p.detach().view(-1),
    "a state dict": lambda p: nn.ParameterList([p]).state_dict(),
    "a graph of a view": lambda p: p.view(-1).sin(),
    "numpy": lambda p: p.detach().numpy(),
    "dlpack": lambda p: torch.from_dlpack(p.detach()),
    "its storage": lambda p: p.untyped_storage(),
}


def numbers(watcher: Any) -> Tensor:
    """What a watcher sees."""
    if isinstance(watcher, dict):
        watcher = watcher["0"]
    if isinstance(watcher, torch.UntypedStorage):
        watcher = torch.empty(0).set_(watcher)
    if isinstance(watcher, Tensor) and watcher.grad_fn is not None:
        watcher = watcher._base if watcher._base is not None else watcher
    return torch.as_tensor(watcher).detach().reshape(-1)


@pytest.mark.parametrize("watcher", [name for name in WATCHERS if "graph" not in name])
def test_who_looks_at_a_weight_sees_it_shifted(watcher: str) -> None:
    p = nn.Parameter(torch.randn(600, 1000))
    optimizer, looks = wrapped([p]), WATCHERS[watcher](p)
    before = numbers(looks).clone()
    give([p])
    with optimizer.perturbed():
        assert torch.equal(numbers(looks), p.detach().reshape(-1))
        assert not torch.equal(numbers(looks), before)
    assert torch.equal(numbers(looks), before)


@pytest.mark.parametrize("watcher", WATCHERS)
def test_who_begins_to_look_in_the_body_sees_the_weight_ever_after(watcher: str) -> None:
    """A view that a module makes at its first call, or a state dict that is saved later."""
    p = nn.Parameter(torch.randn(600, 1000))
    before = p.detach().clone().reshape(-1)
    optimizer = wrapped([p])
    give([p])
    with optimizer.perturbed():
        looks = WATCHERS[watcher](p)
        give([p])
    assert torch.equal(p.detach().reshape(-1), before)
    if "graph" not in watcher:
        assert torch.equal(numbers(looks), before)
        optimizer.step()
    else:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            looks.sum().backward()
        optimizer.zero_grad()  # which the backward that failed may have changed
    for _ in range(2):
        if "graph" not in watcher:
            assert torch.equal(numbers(looks), p.detach().reshape(-1))
        give([p])
        with optimizer.perturbed():
            give([p])
        optimizer.step()


def test_what_was_lent_is_lent_again() -> None:
    params = parameters()
    optimizer, places = wrapped(params, GSAM), []
    for _ in range(3):
        give(params)
        with optimizer.perturbed():
            places.append(addresses(params)[:3])
            give(params)
        optimizer.step()
    assert places[0] == places[1] == places[2]
    assert not set(places[0]) & set(addresses(params))
    size = sum(4 * p.numel() for p in params[:3])
    assert size <= optimizer._workspace.nbytes <= size + (4 << 18) + 100
    before = optimizer._workspace.nbytes
    del params[2].grad
    optimizer.param_groups[0]["params"] = params[:2]
    optimizer.param_groups[0]["param_names"] = ["0.weight", "1.weight"]
    for _ in range(2):
        give(params[:2])
        with optimizer.perturbed():
            give(params[:2])
        optimizer.step()
    assert optimizer._workspace.nbytes <= before - 4 * params[2].numel()


def test_memory_that_is_done_with_is_lent_if_it_lies_higher() -> None:
    """What is freed at the end of the heap goes back to the system, page by page."""
    workspace, like = Workspace(), torch.empty(600, 1000)
    low, high = sorted((torch.empty_like(like) for _ in range(2)), key=Tensor.data_ptr)
    other = torch.empty(1000, 600)
    for had, done in ((low, high), (high, low), (high, other)):
        workspace.clear()
        workspace.take_back(had.view_as(had))
        workspace.trade(done.view_as(done))
        workspace.begin()
        assert workspace.nbytes == 4 * like.numel()
        with pytest.MonkeyPatch.context() as patch:  # for this test has names for both
            patch.setattr(_workspace, "is_shared", lambda t: False)
            assert workspace.lend(like).data_ptr() == high.data_ptr()


def test_a_rise_that_somebody_looks_at_is_not_lent() -> None:
    params = parameters()
    optimizer = wrapped(params, WSAM)
    for _ in range(4):
        give(params)
        with optimizer.perturbed():
            give(params)
        seen = dict(optimizer._visit.aside)
        before = {p: t.clone() for p, t in seen.items()}
        optimizer.step()
        give(params)
        with optimizer.perturbed():
            assert all(torch.equal(seen[p], before[p]) for p in params)
            give(params)
        optimizer.step()


def test_not_to_look_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_restore, "is_shared", lambda t: False)
    with pytest.raises(AssertionError):
        test_who_begins_to_look_in_the_body_sees_the_weight_ever_after("a view")


def test_a_graph_of_the_first_pass_is_not_of_the_shifted_weights() -> None:
    """Autograd keeps the parameter itself, wherever it lies."""
    p = nn.Parameter(torch.randn(600, 1000))
    optimizer = wrapped([p])
    loss = p.square().sum()
    loss.backward(retain_graph=True)
    with (
        pytest.raises(RuntimeError, match="modified by an inplace operation"),
        optimizer.perturbed(),
    ):
        loss.backward()


def test_a_graph_of_the_body_is_not_of_the_weights_after_it() -> None:
    p = nn.Parameter(torch.randn(600, 1000))
    optimizer = wrapped([p])
    give([p])
    with optimizer.perturbed():
        loss = p.square().sum()
        loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def foreign(kind: str, folder: Path) -> nn.Parameter:
    """A parameter in memory that others may know by its address."""
    values = torch.randn(600, 1000)
    if kind == "numpy's":
        return nn.Parameter(torch.from_numpy(values.numpy().copy()))
    if kind == "a file's":
        torch.save(values, folder / "weights.pt")
        return nn.Parameter(torch.load(folder / "weights.pt", mmap=True, weights_only=True))
    if kind == "shared":
        return nn.Parameter(values.share_memory_())
    return nn.Parameter(torch.randn(700, 1000)[:600])


@pytest.mark.parametrize("kind", ["numpy's", "a file's", "shared", "a part"])
def test_what_torch_has_not_allocated_for_one_alone_stays(kind: str, tmp_path: Path) -> None:
    p = foreign(kind, tmp_path)
    optimizer, at, before = wrapped([p]), p.data_ptr(), p.detach().clone()
    give([p])
    with optimizer.perturbed():
        assert p.data_ptr() == at and not torch.equal(p, before)
    assert torch.equal(p, before)


def test_what_a_body_puts_behind_a_parameter_gets_the_values() -> None:
    """As frameworks do that carry weights to a device and back."""
    p = nn.Parameter(torch.randn(600, 1000))
    optimizer, before = wrapped([p]), p.detach().clone()
    give([p])
    with optimizer.perturbed():
        p.data = p.data.clone()
        other = p.data_ptr()
        give([p])
    assert torch.equal(p, before) and p.data_ptr() == other


def test_tied_weights_move_once() -> None:
    first, second = nn.Linear(300, 300), nn.Linear(300, 300)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    optimizer = KIND(torch.optim.SGD(model.named_parameters(), lr=0.1), rho=0.5)
    before = first.weight.detach().clone()
    x = torch.randn(4, 300)
    model(x).square().sum().backward()
    with optimizer.perturbed():
        assert first.weight is second.weight and not torch.equal(first.weight, before)
        model(x).square().sum().backward()
    assert torch.equal(first.weight, before)
