"""Variants with one pass a step: their equations by hand, and what one pass asks of a loop."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin import MSAM, SAM, AsyncSAM, Elementwise, Every, Identity, WhenLarge
from flatmin.optim import LastPart
from hand import HAND, matrix, steepest

VARIANTS: dict[str, Any] = {"MSAM": MSAM, "AsyncSAM": AsyncSAM}
SCALES: dict[str, Any] = {
    "Identity": (Identity(), torch.ones_like),
    "Elementwise": (Elementwise(0.02), lambda w: w.abs() + 0.02),
}


class Bowl(nn.Module):
    """L(w) = ½ wᵀAw with three tensors."""

    def __init__(self) -> None:
        super().__init__()
        w = torch.linspace(-1, 1.5, 7, dtype=torch.float64)
        self.a = matrix()
        self.parts = nn.ParameterList([w[:4].clone().view(2, 2), w[4:6].clone(), w[6].clone()])

    def point(self) -> Tensor:
        return torch.cat([part.detach().flatten() for part in self.parts])

    def forward(self) -> Tensor:
        flat = torch.cat([part.flatten() for part in self.parts])
        return flat @ self.a @ flat / 2


def block(optimizer: Any, bowl: nn.Module) -> None:
    optimizer.zero_grad()
    with optimizer.perturbed():
        bowl().backward()
    optimizer.step()


def closure(optimizer: Any, bowl: nn.Module) -> None:
    def evaluate() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = bowl()
        loss.backward()
        return loss

    optimizer.step(evaluate)


def direction(variant: str, base: str, state: dict[str, Any], last: Tensor | None) -> Any:
    """What each climbs along, with its sign; None in the first step."""
    if variant == "AsyncSAM":
        return last
    return None if "m" not in state else -state["m"]


@pytest.mark.parametrize("loop", [block, closure])
@pytest.mark.parametrize("p", [1.5, 2.0, math.inf])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("base", HAND)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_step_by_hand(variant: str, base: str, scale: str, p: float, loop: Any) -> None:
    """Norms over all tensors at once; the weights between the steps are the clean ones."""
    by_hand, make = HAND[base]
    chosen, factors = SCALES[scale]
    bowl = Bowl()
    w, state, last = bowl.point(), {}, None
    optimizer = VARIANTS[variant](make(bowl.named_parameters()), rho=0.3, p=p, scale=chosen)
    for _ in range(8):
        d, t = direction(variant, base, state, last), factors(w)
        shift = 0.0 * w if d is None else 0.3 * t * steepest(t * d, p)
        last = bowl.a @ (w + shift)
        w = by_hand(w, last, state)
        loop(optimizer, bowl)
        torch.testing.assert_close(bowl.point(), w, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_norm_of_each_tensor_is_another_method(variant: str) -> None:
    """The usual mistake gives visibly other numbers."""
    bowl = Bowl()
    optimizer = VARIANTS[variant](torch.optim.SGD(bowl.parameters(), lr=0.05, momentum=0.9), 0.3)
    block(optimizer, bowl)
    optimizer.zero_grad()
    start = [part.detach().clone() for part in bowl.parts]
    g = bowl.a @ torch.linspace(-1, 1.5, 7, dtype=torch.float64)
    sign = -1.0 if variant == "MSAM" else 1.0  # after one step the momentum is the gradient
    with optimizer.perturbed():
        shifts = [part.detach() - w for part, w in zip(bowl.parts, start, strict=True)]
    sizes = [part.numel() for part in bowl.parts]
    for shift, own in zip(shifts, g.split(sizes), strict=True):
        torch.testing.assert_close(shift.flatten(), sign * 0.3 * own / g.norm(), rtol=1e-10, atol=0)
        assert not torch.allclose(shift.flatten(), sign * 0.3 * own / own.norm(), rtol=0.1)


def test_maximize_turns_both_around() -> None:
    for variant in VARIANTS:
        up, down = Bowl(), Bowl()
        up.a = -up.a
        optimizers = [
            VARIANTS[variant](
                torch.optim.SGD(bowl.parameters(), lr=0.05, momentum=0.9, maximize=maximize), 0.3
            )
            for bowl, maximize in ((up, True), (down, False))
        ]
        for _ in range(4):
            for optimizer, bowl in zip(optimizers, (up, down), strict=True):
                block(optimizer, bowl)
        assert torch.equal(up.point(), down.point())


@pytest.mark.parametrize("loop", [block, closure])
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_pass_a_step(variant: str, loop: Any) -> None:
    bowl = Bowl()
    calls: list[bool] = []
    optimizer = VARIANTS[variant](torch.optim.Adam(bowl.parameters()), when=Every(2))
    bowl.register_forward_pre_hook(lambda *_: calls.append(optimizer.in_second_pass))
    for _ in range(4):
        loop(optimizer, bowl)
    # A closure is called outside of the block in steps that are not due.
    assert calls == ([True] * 4 if loop is block else [True, False] * 2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_batch_norm_learns_from_the_only_pass(variant: str) -> None:
    """With ``model=`` too: there is no other pass that its statistics could come from."""
    norm = nn.BatchNorm1d(3, dtype=torch.float64)
    base = torch.optim.SGD(norm.named_parameters(), lr=0.1, momentum=0.9)
    optimizer = VARIANTS[variant](base, model=norm)
    x = torch.linspace(-1, 2, 12, dtype=torch.float64).view(4, 3)
    for count in range(1, 4):
        optimizer.zero_grad()
        with optimizer.perturbed():
            norm(x).square().sum().backward()
        optimizer.step()
        assert norm.num_batches_tracked == count
        expected = x.mean(0) * (1 - 0.9**count)
        torch.testing.assert_close(norm.running_mean, expected)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_the_last_gradient_is_resumed(make: Any) -> None:
    """Bit for bit through a file of weights alone; a bare base takes the record, and gives its."""
    bowl, twin = Bowl(), Bowl()
    optimizer = AsyncSAM(make(bowl.parameters(), lr=0.05), 0.3)
    for _ in range(3):
        block(optimizer, bowl)
    file = io.BytesIO()
    torch.save((bowl.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, record = torch.load(file, weights_only=True)
    twin.load_state_dict(weights)
    other = AsyncSAM(make(twin.parameters(), lr=0.05), 0.3)
    other.load_state_dict(record)
    bare = make(Bowl().parameters(), lr=0.05)
    bare.load_state_dict(record)
    for _ in range(3):
        block(optimizer, bowl)
        block(other, twin)
    assert torch.equal(bowl.point(), twin.point())
    without = make(twin.parameters(), lr=0.05)
    AsyncSAM(without, 0.3).load_state_dict(make(Bowl().parameters(), lr=0.05).state_dict())
    assert not without.state


def test_a_skipped_step_leaves_the_last_gradient() -> None:
    bowl = Bowl()
    optimizer = AsyncSAM(torch.optim.SGD(bowl.parameters(), lr=0.05), 0.3)
    block(optimizer, bowl)
    before = {p: s["sam_last"].clone() for p, s in optimizer.state.items()}
    optimizer.zero_grad()
    with optimizer.perturbed():
        (bowl() * torch.nan).backward()
    with pytest.warns(RuntimeWarning, match="skipped a step"):
        optimizer.step()
    assert all(torch.equal(s["sam_last"], before[p]) for p, s in optimizer.state.items())


def test_a_parameter_without_a_gradient_is_not_remembered() -> None:
    """What had none in the last step does not move in the next; Adam's own state begins well."""
    x, y = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    optimizer = AsyncSAM(torch.optim.Adam([x, y], lr=0.1), 0.3)
    for step in range(4):
        optimizer.zero_grad()
        before = y.detach().clone()
        with optimizer.perturbed():
            assert torch.equal(y, before) is (step % 2 == 1 or step == 0)
            loss = x.square().sum() + (y.square().sum() if step % 2 else 0.0)
            loss.backward()
        optimizer.step()
        assert ("sam_last" in optimizer.state.get(y, {})) == bool(step % 2)


# Misuse


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_wasted_first_pass_is_told_of_once(variant: str) -> None:
    bowl = Bowl()
    optimizer = VARIANTS[variant](torch.optim.Adam(bowl.parameters()))
    with pytest.warns(RuntimeWarning, match="needs no first pass") as caught:
        for _ in range(2):
            optimizer.zero_grad()
            bowl().backward()
            with optimizer.perturbed():
                bowl().backward()
            optimizer.step()
    assert len(caught) == 1
    optimizer.zero_grad(set_to_none=False)  # zeros are no pass
    with optimizer.perturbed():
        bowl().backward()


@pytest.mark.parametrize("variant", VARIANTS)
def test_several_blocks_are_refused(variant: str) -> None:
    bowl = Bowl()
    optimizer = VARIANTS[variant](torch.optim.Adam(bowl.parameters()))
    with optimizer.perturbed():
        bowl().backward()
    one = "put the passes of all parts into one block"
    with pytest.raises(RuntimeError, match=one), optimizer.perturbed():
        pass
    with pytest.raises(RuntimeError, match="into one block"), optimizer.micro_batches():
        pass
    optimizer.step()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_closure_that_adds_is_refused_and_one_that_makes_none_is_the_bases(variant: str) -> None:
    bowl, twin = Bowl(), Bowl()
    optimizer = VARIANTS[variant](torch.optim.Adam(bowl.parameters(), lr=0.1))
    bare = torch.optim.Adam(twin.parameters(), lr=0.1)
    for _ in range(3):
        for one, net in ((optimizer, bowl), (bare, twin)):
            one.zero_grad()
            net().backward()
            one.step(lambda: 1.0)
    assert torch.equal(bowl.point(), twin.point())

    def adds() -> Tensor:
        loss: Tensor = bowl()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="added to gradients"):
        optimizer.step(adds)


def test_what_has_no_momentum_is_refused() -> None:
    for base in (
        torch.optim.SGD(Bowl().parameters(), lr=0.1),
        torch.optim.Adadelta(Bowl().parameters()),
        torch.optim.Adam(Bowl().parameters(), betas=(0.0, 0.9)),
    ):
        with pytest.raises(ValueError, match=f"{type(base).__name__} has none in a group"):
            MSAM(base)

    class Hidden(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            super().step()
            for p in self.param_groups[0]["params"]:
                self.state[p] = {"velocity": self.state[p].get("momentum_buffer")}

    bowl = Bowl()
    optimizer = MSAM(Hidden(bowl.parameters(), lr=0.1, momentum=0.9))
    block(optimizer, bowl)
    with pytest.raises(RuntimeError, match="Hidden keeps no momentum_buffer and no exp_avg"):
        block(optimizer, bowl)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rules_and_scales_that_make_no_sense(variant: str) -> None:
    base = torch.optim.Adam(Bowl().parameters())
    with pytest.raises(ValueError, match="WhenLarge looks at the gradient of a first pass"):
        VARIANTS[variant](base, when=WhenLarge(10))
    with pytest.raises(TypeError, match="when must be a rule"):
        VARIANTS[variant](base, when=5)
    with pytest.raises(TypeError, match="scale must be a scale"):
        VARIANTS[variant](base, scale=Identity)
    with pytest.raises(ValueError, match="tells them by name"):
        VARIANTS[variant](base, scale=Elementwise(biases=False))


def test_late_msam_is_late_sam_in_its_first_steps() -> None:
    """Before a rule is due both are the base, bit for bit."""
    one, other = Bowl(), Bowl()
    late = LastPart(0.25, of=8)
    first = MSAM(torch.optim.Adam(one.parameters()), when=late)
    second = SAM(torch.optim.Adam(other.parameters()), when=late)
    for _ in range(6):
        closure(first, one)
        closure(second, other)
    assert torch.equal(one.point(), other.point())
    closure(first, one)
    closure(second, other)
    assert not torch.equal(one.point(), other.point())
