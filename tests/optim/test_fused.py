"""``fused=True`` is a matter of speed: the same steps, the same promises."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import VARIANTS, assert_same_bits, bits, build

pytestmark = [
    pytest.mark.slow,  # it compiles
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),  # of inductor itself
]


def network() -> nn.Module:
    """Tensors large enough to be fused, beside small ones."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(300, 500), nn.Tanh(), nn.Linear(500, 300), nn.Linear(300, 3))


def backward(model: nn.Module) -> Tensor:
    x = torch.linspace(-1, 1, 4 * 300).view(4, 300)
    loss = (model(x) - 1.0).square().mean()
    loss.backward()
    return loss


def step(optimizer: Any, model: nn.Module) -> None:
    optimizer.zero_grad()
    backward(model)
    with optimizer.perturbed():
        backward(model)
    optimizer.step()


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_steps(variant: str, p: float) -> None:
    ends = []
    for fused in (False, True):
        model = network()
        # Small enough for every p that rounding does not grow from step to step.
        optimizer = build(variant, "SGD", model, p=p, rho=1e-3, fused=fused, lr=0.01)
        for _ in range(3):
            step(optimizer, model)
        ends.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trouble", ["none", "nan first", "nan second", "exception", "no second"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.filterwarnings("ignore:.* skipped a step")
def test_restore(variant: str, trouble: str) -> None:
    model = network()
    optimizer = build(variant, "SGD", model, fused=True, lr=0.0)
    before = bits(model)
    for _ in range(3):
        optimizer.zero_grad()
        backward(model)
        if trouble == "nan first":
            model[0].weight.grad[3, 3] = math.nan
        try:
            with optimizer.perturbed():
                # Where each batch is the same, Friendly SAM finds no noise to climb along.
                still = trouble == "nan first" or variant == "FriendlySAM"
                assert still or bits(model) != before
                if trouble != "no second":
                    backward(model)
                if trouble == "nan second":
                    model[0].weight.grad[3, 3] = math.nan
                if trouble == "exception":
                    raise KeyError
        except KeyError:
            assert trouble == "exception"
        optimizer.step()
        assert_same_bits(before, model)


def test_a_gradient_that_the_user_kept_is_left_alone() -> None:
    """To compare the two gradients, say, or to log the first."""
    model = network()
    optimizer = build("SAM", "SGD", model, fused=True)
    backward(model)
    kept = [p.grad for p in model.parameters()]
    expected = [grad.clone() for grad in kept]
    with optimizer.perturbed():
        backward(model)
    for grad, value in zip(kept, expected, strict=True):
        assert torch.equal(grad, value)


def test_a_view_of_a_gradient_that_the_user_kept_is_left_alone() -> None:
    model = network()
    optimizer = build("SAM", "SGD", model, fused=True)
    backward(model)
    kept = model[0].weight.grad[3].detach()
    expected = kept.clone()
    with optimizer.perturbed():
        backward(model)
        assert torch.equal(kept, expected)
