"""Which pass this is, whether there was one, and that neither depends on torch's defaults."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import OTHERS_SLOWLY, VARIANTS, build, same


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def loss_of(model: nn.Module) -> Tensor:
    x = torch.linspace(-1, 1, 12).view(4, 3)
    return (model(x) - 1.0).square().mean()


def step(optimizer: Any, model: nn.Module) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()
    with optimizer.perturbed():
        loss_of(model).backward()
    optimizer.step()


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, float("inf")])
@pytest.mark.parametrize("variant", OTHERS_SLOWLY)
def test_other_defaults_of_torch_change_nothing(variant: str, p: float, given: bool) -> None:
    """No tensor is made where, or as, the user's defaults would have it: on ``meta`` it shows."""
    ends = []
    for device, dtype in (("cpu", torch.float32), ("meta", torch.float64)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
        x = torch.linspace(-1, 1, 12).view(4, 3)
        optimizer = build(variant, "SGD", model, p=p, model=model if given else None)
        torch.set_default_device(device)
        torch.set_default_dtype(dtype)
        try:
            for _ in range(3):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                with optimizer.perturbed():
                    model(x).square().mean().backward()
                optimizer.step()
        finally:
            torch.set_default_device(None)
            torch.set_default_dtype(torch.float32)
        ends.append(model.state_dict())
    assert same(*ends)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_second_pass_is_told_from_the_first(variant: str) -> None:
    model = network()
    optimizer = build(variant, "SGD", model)
    seen = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        seen.append(optimizer.in_second_pass)
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert seen == [False, True] and not optimizer.in_second_pass
    with pytest.raises(KeyError), optimizer.perturbed():
        raise KeyError
    assert not optimizer.in_second_pass


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_base_alone_is_meant_where_rho_is_zero(variant: str) -> None:
    """No warning of a forgotten block, then; nor once a block has been."""
    model = network()
    optimizer = build(variant, "SGD", model, rho=0.0)
    loss_of(model).backward()
    optimizer.step()
    optimizer.param_groups[0]["sam_rho"] = 0.1
    step(optimizer, model)
    optimizer.zero_grad()
    loss_of(model).backward()
    optimizer.step()
