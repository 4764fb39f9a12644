"""Wherever a model keeps what it has computed, it is found, named, and left as it was."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin import Ball, EmpiricalLoss
from flatmin.sharpness import average_sharpness

Make = Callable[[], Tensor]


class Cache:
    """An object of one's own."""

    def __init__(self) -> None:
        self.made: dict[str, Tensor] = {}


class Factored(nn.Module):
    """A product of two factors, merged once in eval mode and kept somewhere."""

    def __init__(self, keep: Callable[[Any, Make], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.u, self.v = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(2, 4))
        self.keep = keep
        self._cache: dict[str, Any] = {}
        self.store: list[Tensor] = []
        self.slots: list[Tensor | None] = [None, None]
        self.nested: dict[str, dict[str, Tensor]] = {"layer": {}}
        self.pair: tuple[Tensor, str] | None = None
        self.state, self.cache = SimpleNamespace(w=None), Cache()
        self.register_buffer("merged", None, persistent=False)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        make: Make = lambda: (self.u @ self.v).detach()  # noqa: E731
        return F.linear(x, self.u @ self.v if self.training else self.keep(self, make))


def in_attribute(m: Any, make: Make) -> Tensor:
    if not hasattr(m, "weight"):
        m.weight = make()
    found: Tensor = m.weight
    return found


def in_list(m: Any, make: Make) -> Tensor:
    if not m.store:
        m.store.append(make())
    found: Tensor = m.store[0]
    return found


def in_slot(m: Any, make: Make) -> Tensor:
    if m.slots[1] is None:
        m.slots[1] = make()
    found: Tensor = m.slots[1]
    return found


def in_tuple(m: Any, make: Make) -> Tensor:
    if m.pair is None:
        m.pair = make(), "merged"
    found: Tensor = m.pair[0]
    return found


def in_namespace(m: Any, make: Make) -> Tensor:
    if m.state.w is None:
        m.state.w = make()
    found: Tensor = m.state.w
    return found


def in_buffer(m: Any, make: Make) -> Tensor:
    if m.merged is None:
        m.merged = make()
    found: Tensor = m.merged
    return found


def in_dictionary(where: Callable[[Any], dict[str, Tensor]]) -> Callable[[Any, Make], Tensor]:
    def keep(m: Any, make: Make) -> Tensor:
        if "w" not in where(m):
            where(m)["w"] = make()
        return where(m)["w"]

    return keep


HOMES: dict[str, Callable[[Any, Make], Tensor]] = {
    "weight": in_attribute,
    "_cache['w']": in_dictionary(lambda m: m._cache),
    "nested['layer']['w']": in_dictionary(lambda m: m.nested["layer"]),
    "cache.made['w']": in_dictionary(lambda m: m.cache.made),
    "store[0]": in_list,
    "slots[1]": in_slot,
    "pair": in_tuple,
    "state.w": in_namespace,
    "merged": in_buffer,
}


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (12,), generator=generator)


def rise(model: nn.Module) -> float:
    objective = EmpiricalLoss(model, F.cross_entropy, [data()])
    return average_sharpness(objective, objective.params, Ball(rho=0.5), samples=2).value


def kept(m: Factored) -> list[object]:
    """Everything that may hold the product."""
    parts = [m._cache, m.store, m.slots, m.nested["layer"], vars(m.state), m.cache.made]
    copies: list[object] = [part.copy() for part in parts]  # type: ignore[attr-defined]
    return [*copies, m.pair, m.merged, vars(m).get("weight")]


@pytest.mark.parametrize("name", HOMES)
@pytest.mark.parametrize("inside", [False, True])
def test_what_was_kept_before_is_refused_by_name(name: str, inside: bool) -> None:
    layer = Factored(HOMES[name]).eval()
    model = nn.Sequential(nn.Identity(), layer) if inside else layer
    with torch.no_grad():
        model(data()[0])
    before = kept(layer)
    with pytest.raises(ValueError, match="must follow the parameters") as refusal:
        rise(model)
    assert f"but {'1.' if inside else ''}{name} was computed" in str(refusal.value)
    assert [str(part) for part in kept(layer)] == [str(part) for part in before]


@pytest.mark.parametrize("name", HOMES)
def test_what_a_measure_makes_the_model_keep_is_gone_each_time(name: str) -> None:
    model = Factored(HOMES[name]).eval()
    before = kept(model)
    assert rise(model) == rise(Factored(HOMES[name]))
    assert kept(model) == before


def test_names_of_containers_in_modules_in_containers() -> None:
    layer = Factored(HOMES["store[0]"]).eval()
    model = nn.ModuleDict({"block": nn.ModuleList([layer])})
    model.forward = layer.forward  # type: ignore[method-assign]
    model(data()[0])
    with pytest.raises(ValueError, match=r"but block\.0\.store\[0\] was computed"):
        rise(model)


class Constant(nn.Module):
    """What a model cannot do without, and what it has no use for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.last = nn.BatchNorm1d(4), nn.Linear(4, 3)
        self.register_buffer("mean", torch.tensor([1.0, 2.0, 3.0, 4.0]))
        self.unused = [torch.ones(2), SimpleNamespace(t=torch.ones(3))]
        self.state = SimpleNamespace(scale=torch.full((4,), 0.5))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.norm(x) * self.state.scale - self.mean)
        return out


def test_constants_are_believed() -> None:
    assert rise(Constant().eval()) > 0
