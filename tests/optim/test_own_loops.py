"""Loops that people bring along: right, or told in one sentence what to change."""

from __future__ import annotations

import io
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from cases import VARIANTS, build
from flatmin import ASAM, SAM, Ball, Elementwise, Every
from flatmin.optim import FollowingLR, LastPart, WhenLarge, WithProbability

INPUTS = torch.linspace(-1.0, 1.0, 12).reshape(4, 3)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1))


def around(model: nn.Module, **options: Any) -> SAM:
    return SAM(torch.optim.SGD(model.named_parameters(), lr=0.1), model=model, **options)


def value(model: nn.Module, inputs: Tensor = INPUTS) -> Tensor:
    return torch.as_tensor(model(inputs).square().mean())


def both(optimizer: Any, loss: Callable[[], Tensor]) -> None:
    optimizer.zero_grad()
    loss().backward()  # type: ignore[no-untyped-call]
    with optimizer.perturbed():
        loss().backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def gradients_with(unscale: Callable[[torch.amp.GradScaler, Any], None]) -> None:
    model = nn.Linear(3, 1)
    optimizer, scaler = around(model), torch.amp.GradScaler("cpu")
    for _ in range(2):
        model.zero_grad(set_to_none=False)
        scaler.scale(value(model)).backward()
        unscale(scaler, optimizer)
        with optimizer.perturbed():
            scaler.scale(value(model)).backward()
        scaler.step(optimizer)
        scaler.update()


def test_unscaling_before_the_block_is_refused() -> None:
    """The scaler unscales once a step: what the block makes would be 65,536 times too large."""
    with pytest.raises(RuntimeError, match=r"call unscale_\(\) after the block"):
        gradients_with(lambda scaler, optimizer: scaler.unscale_(optimizer))
    gradients_with(lambda scaler, optimizer: None)


def test_an_overflow_that_was_unscaled_is_over_with_its_gradients() -> None:
    model = nn.Linear(3, 1)
    optimizer, scaler = around(model), torch.amp.GradScaler("cpu")
    scaler.scale(value(model) * torch.inf).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)  # which steps no optimizer
    scaler.update()
    for set_to_none in (True, False):
        optimizer.zero_grad(set_to_none)
        scaler.scale(value(model)).backward()
        with optimizer.perturbed():
            scaler.scale(value(model)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.report is not None and optimizer.report.shift_norm > 0


def test_a_part_of_the_batch_in_the_second_pass_is_told() -> None:
    model = network()
    optimizer = around(model)
    with pytest.warns(RuntimeWarning, match="called the model more often") as caught:
        for _ in range(2):
            optimizer.zero_grad()
            for part in INPUTS.chunk(2):
                value(model, part).backward()
            with optimizer.perturbed():
                value(model, part).backward()
            optimizer.step()
    assert [Path(w.filename) for w in caught] == [Path(__file__)]  # once, and where it happens


def test_the_graph_of_the_first_pass_in_the_block_is_told() -> None:
    """A linear map needs its weights in no backward, so autograd itself does not complain."""
    model = nn.Linear(3, 1)
    optimizer = around(model)
    loss = model(INPUTS).mean()
    loss.backward(retain_graph=True)
    with pytest.warns(RuntimeWarning, match="repeat each forward pass"), optimizer.perturbed():
        loss.backward()


def test_the_error_of_autograd_says_what_moved() -> None:
    model = network()
    optimizer = around(model)
    loss = value(model)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace") as caught, optimizer.perturbed():
        loss.backward()
    assert "repeat the forward pass there" in "".join(traceback.format_exception(caught.value))


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


class Slots:
    __slots__ = ("logits",)

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


@pytest.mark.parametrize(
    ("wrap", "read"),
    [
        (Output, lambda out: out.logits),
        (Slots, lambda out: out.logits),
        (lambda y: [{"out": Output(y)}], lambda out: out[0]["out"].logits),
        (lambda y: Normal(y, 1.0), lambda out: out.mean),
    ],
)
def test_masks_return_whatever_the_output_is_wrapped_in(wrap: Any, read: Any) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()
            self.inner[2].register_forward_hook(lambda _, __, out: masks.append(out == 0))

        def forward(self, inputs: Tensor) -> Any:
            return wrap(self.inner(inputs))

    masks: list[Tensor] = []
    model = Wrapped()
    both(around(model), lambda: torch.as_tensor(read(model(INPUTS)).square().mean()))
    assert torch.equal(masks[0], masks[1]) and masks[0].any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_numbers_of_numpy_can_be_saved(variant: str) -> None:
    model = nn.Linear(3, 1)
    optimizer: Any = build(variant, "SGD", model, rho=np.float64(0.05))
    for rho in np.linspace(0.01, 0.05, 2, dtype=np.float32):  # a schedule
        optimizer.param_groups[0]["sam_rho"] = rho
        both(optimizer, lambda: value(model))
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    saved.seek(0)
    loaded = torch.load(saved, weights_only=True)
    assert loaded["param_groups"][0]["sam_rho"] == float(np.float32(0.05))


def test_values_take_numbers_of_numpy() -> None:
    assert Ball(np.float32(0.5), np.int64(1)) == Ball(0.5, 1)
    assert Elementwise(np.array(0.5)) == Elementwise(0.5)
    assert Every(np.int64(3)) == Every(3)
    assert LastPart(np.float32(0.25), np.int16(8)) == LastPart(0.25, 8)
    assert WithProbability(np.float64(0.5), np.int64(1)) == WithProbability(0.5, 1)
    assert WhenLarge(np.int64(9), np.float32(-1)) == WhenLarge(9)
    assert FollowingLR(np.float32(0.25), np.float64(0.5), np.int64(1)) == FollowingLR(0.25, 0.5, 1)
    rho = ASAM(torch.optim.SGD([("x", nn.Parameter(torch.ones(1)))]), rho=np.float32(0.5), eta=1)
    assert type(rho.param_groups[0]["sam_rho"]) is float
    with pytest.raises(TypeError, match="must be an integer, got True"):
        Every(np.bool_(True))  # type: ignore[arg-type]


def test_a_large_wrong_argument_is_named_by_its_type() -> None:
    model = network()
    with pytest.raises(TypeError, match=r"rho must be a number .*, got a Sequential\.$"):
        SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["rho", "adaptive"])
def test_settings_of_a_sam_py_in_a_group(key: str) -> None:
    x = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=f"a group has {key}, .* is sam_rho"):
        SAM(torch.optim.SGD([{"params": [x], key: 0.5}], lr=0.1))
    adadelta = SAM(torch.optim.Adadelta([x], rho=0.5))
    adadelta.load_state_dict(adadelta.state_dict())
    assert adadelta.param_groups[0]["rho"] == 0.5


def test_several_radii_in_a_group() -> None:
    x = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=r"sam_rho .* one number, got a tensor of shape \(2,\)"):
        SAM(torch.optim.SGD([x], lr=0.1), rho=torch.tensor([0.1, 0.2]))  # type: ignore[arg-type]


def test_a_checkpoint_of_a_sam_py() -> None:
    """Its groups are those of the base with two settings more; its state is not the base's."""
    model = nn.Linear(3, 1)
    optimizer = around(model)
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["sam_rho"]
    saved["param_groups"][0].update(rho=0.05, adaptive=False, lr=9.0)
    with pytest.raises(ValueError, match="load the weights of the network alone"):
        optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_gradients_cleared_between_block_and_step() -> None:
    model = nn.Linear(3, 1)
    optimizer = around(model)
    value(model).backward()
    with optimizer.perturbed():
        value(model).backward()
    optimizer.zero_grad()
    with pytest.warns(RuntimeWarning, match="step.. found no gradient, so nothing moves"):
        optimizer.step()


def test_a_closure_that_was_called() -> None:
    model = nn.Linear(3, 1)
    optimizer = around(model)
    with pytest.raises(TypeError, match="got a Tensor; hand it over without calling it"):
        optimizer.step(value(model))  # type: ignore[arg-type]


def test_a_block_in_a_closure() -> None:
    model = nn.Linear(3, 1)
    optimizer = around(model)

    def closure() -> None:
        value(model).backward()
        with optimizer.perturbed():
            value(model).backward()

    with pytest.raises(RuntimeError, match=r"step\(closure\) makes both passes"):
        optimizer.step(closure)
