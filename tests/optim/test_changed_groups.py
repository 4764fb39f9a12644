"""Groups, states and settings that are changed behind a wrapper's back: followed, or refused."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from flatmin import ASAM, SAM, WSAM, AsyncSAM, Every, FriendlySAM

X = torch.randn(16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = torch.arange(16) % 3


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3)
    return nn.Sequential(*layers).double()


def test_a_base_wrapped_again_has_the_new_radius() -> None:
    w, v = (nn.Parameter(torch.ones(3)) for _ in range(2))
    base = torch.optim.SGD([{"params": [("w", w)]}, {"params": [("v", v)], "sam_rho": 0.7}], lr=0.1)
    for kind, rho in ((SAM, 0.05), (SAM, 0.2), (ASAM, 0.5)):
        optimizer = kind(base, rho=rho)
        assert [group["sam_rho"] for group in optimizer.param_groups] == [rho, 0.7]
    assert "sam_eta" in base.param_groups[0]


@pytest.mark.parametrize("value", [1.0, torch.tensor(1.0)])
def test_a_radius_where_nobody_looks(value: Any) -> None:
    w = nn.Parameter(torch.ones(3))
    optimizer = SAM(torch.optim.SGD([w], lr=0.1), rho=0.05)
    with pytest.raises(AttributeError, match="sam_rho"):
        optimizer.rho = value
    optimizer.param_groups[0]["rho"] = value
    w.square().sum().backward()
    with pytest.raises(ValueError, match="radius of a group is sam_rho"), optimizer.perturbed():
        pass


def step(optimizer: Any, model: nn.Module) -> None:
    optimizer.zero_grad()
    cross_entropy(model(X), Y).backward()
    with optimizer.perturbed():
        cross_entropy(model(X), Y).backward()
    optimizer.step()


def test_groups_that_were_changed_through_the_base() -> None:
    model = network()
    base = torch.optim.SGD(model[0].parameters(), lr=0.1)
    optimizer = SAM(base, 0.2)
    base.add_param_group({"params": list(model[3].parameters())})
    step(optimizer, model)
    assert [group["sam_rho"] for group in base.param_groups] == [0.2, 0.2]
    bare = torch.optim.SGD(base.param_groups[0]["params"], lr=0.1)
    bare.add_param_group({"params": list(model[3].parameters())})
    base.load_state_dict(bare.state_dict())
    optimizer.when = Every(2)
    step(optimizer, model)
    step(optimizer, model)
    assert [group["sam_rho"] for group in base.param_groups] == [0.2, 0.2]
    assert base.param_groups[0]["sam_steps"] == 2


def test_names_that_do_not_fit_the_parameters() -> None:
    model = network()
    optimizer = SAM(torch.optim.SGD(model.named_parameters(), lr=0.1))
    group = optimizer.param_groups[0]
    group["params"] = [p for p in group["params"] if p.ndim > 1]
    with pytest.raises(ValueError, match=r"2 parameters and 4 param_names.*both lists"):
        step(optimizer, model)


@pytest.mark.parametrize("kind", [FriendlySAM, AsyncSAM])
def test_a_parameter_that_is_pruned_with_its_state(kind: Any) -> None:
    """As is done to the points of a scene: the variant's memory of it begins anew."""
    x = nn.Parameter(torch.randn(6, 3))
    optimizer = kind(torch.optim.Adam([x], lr=0.1), 0.05)
    for turn in range(3):
        (x,) = optimizer.param_groups[0]["params"]
        optimizer.zero_grad()
        if not optimizer.one_pass:
            x.square().sum().backward()
        with optimizer.perturbed():
            x.square().sum().backward()
        optimizer.step()
        if turn == 0:
            state = optimizer.state.pop(x)
            for key in ("exp_avg", "exp_avg_sq"):
                state[key] = state[key][:3]
            optimizer.param_groups[0]["params"][0] = new = nn.Parameter(x.detach()[:3])
            optimizer.state[new] = state
    assert {t.shape for t in optimizer.state[x].values() if t.ndim} == {x.shape}


def test_a_rate_that_is_none_is_refused_before_the_step() -> None:
    class Relative(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            raise AssertionError

    model = network()
    base = Relative(model.parameters(), lr=0.1)
    base.param_groups[0]["lr"] = None
    with pytest.raises(ValueError, match="lr=None"):
        step(WSAM(base, 0.3), model)


def test_a_model_whose_calls_cannot_be_watched() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = torch.jit.script(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"torch\.jit"):
        SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
