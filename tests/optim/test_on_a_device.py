"""What the optimizers promise, where the weights are: on the CPU, and on a GPU where there is one.

The network is that of table 1, made small, in channels_last there and contiguous in the reference.
"""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from cases import BASES, ONE_PASS, VARIANTS, same
from flatmin.models import WideResNet
from slowly import slow_but

ALL = VARIANTS | ONE_PASS
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
everywhere = pytest.mark.parametrize("device", DEVICES)
every = pytest.mark.parametrize("variant", slow_but(ALL, "SAM", "ASAM"))


class Task:
    """A network with its data and its optimizer."""

    def __init__(
        self,
        variant: str,
        device: str,
        *,
        base: str = "SGD",
        dtype: torch.dtype = torch.float64,
        channels_last: bool = True,
        **options: Any,
    ) -> None:
        torch.manual_seed(0)
        form = torch.channels_last if channels_last else torch.contiguous_format
        self.device = device
        self.model = WideResNet(10, 1).to(device, dtype, memory_format=form)
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(4, 8, 3, 8, 8, generator=generator)
        self.x = [part.to(device, dtype, memory_format=form) for part in x]
        self.y = torch.randint(10, (4, 8), generator=generator).to(device)
        inner = BASES[base](self.model.named_parameters())
        self.optimizer: Any = ALL[variant](inner, model=self.model, **options)

    def loss(self, step: int) -> Tensor:
        """Of a batch, which comes again after four steps."""
        outputs = self.model(self.x[step % 4])
        return nn.functional.cross_entropy(outputs, self.y[step % 4])

    def first_pass(self, step: int) -> None:
        """What comes before the block."""
        self.optimizer.zero_grad()
        if not self.optimizer.one_pass:
            self.loss(step).backward()

    def train(self, first: int, last: int) -> Task:
        """Take these steps."""
        for step in range(first, last):
            self.first_pass(step)
            with self.optimizer.perturbed():
                self.loss(step).backward()
            self.optimizer.step()
        return self

    def weights(self) -> list[Tensor]:
        """In memory of their own, on the CPU."""
        return [p.detach().cpu().clone() for p in self.model.parameters()]

    def places(self) -> list[int]:
        """Where the weights lie."""
        return [p.data_ptr() for p in self.model.parameters()]

    def states(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


@everywhere
@pytest.mark.parametrize("base", slow_but(["SGD", "AdamW"], "SGD"))
@every
def test_steps_are_those_of_the_cpu(variant: str, base: str, device: str) -> None:
    """In float64, where layouts and kernels differ by rounding; without a climb they are others."""
    here = Task(variant, device, base=base).train(0, 6).weights()
    there = Task(variant, "cpu", base=base, channels_last=False).train(0, 6).weights()
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    plain = Task("SAM", "cpu", base=base, rho=0.0, channels_last=False).train(0, 6).weights()
    assert max((a - b).abs().max().item() for a, b in zip(here, plain, strict=True)) > 1e-5


@everywhere
@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_bit_for_bit(variant: str, dtype: torch.dtype, device: str) -> None:
    """In the same memory, whatever happens in the block; in it they are elsewhere."""
    task = Task(variant, device, dtype=dtype).train(0, 2)
    before, places = task.weights(), task.places()
    task.first_pass(2)
    with pytest.raises(KeyboardInterrupt), task.optimizer.perturbed():
        assert not same(before, task.weights())
        task.loss(2).backward()
        raise KeyboardInterrupt
    assert same(before, task.weights()) and places == task.places()


@everywhere
@every
def test_training_goes_on_from_a_checkpoint(variant: str, device: str) -> None:
    task = Task(variant, device).train(0, 2)
    file = io.BytesIO()
    torch.save(task.states(), file)
    file.seek(0)
    states = torch.load(file, weights_only=True, map_location=device)
    task.train(2, 4)
    again = Task(variant, device)
    again.model.load_state_dict(states["model"])
    again.optimizer.load_state_dict(states["optimizer"])
    # Up to rounding: convolutions add in another order, on a GPU each time, on a CPU where memory
    # lies otherwise. The same bits are asked for in test_resume.py.
    one, other = tree_leaves(copy.deepcopy(task.states())), tree_leaves(again.train(2, 4).states())
    assert len(one) == len(other)
    for ours, theirs in zip(one, other, strict=True):
        if isinstance(ours, Tensor):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        else:
            assert ours == theirs or (isinstance(ours, float) and ours == pytest.approx(theirs))


@everywhere
@every
@pytest.mark.filterwarnings("ignore:FriendlySAM compares the gradients of different steps")
def test_an_overflow_skips_the_step_and_lowers_the_scale(variant: str, device: str) -> None:
    """Mixed precision as people write it, with a loss in the second step that is too large."""
    task = Task(variant, device, dtype=torch.float32)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**10)
    half = torch.float16 if device == "cuda" else torch.bfloat16

    def backward(step: int) -> None:
        with torch.autocast(device, half):
            loss = task.loss(step)
        scaler.scale(loss * (1e38 if step == 1 else 1.0)).backward()

    seen = []
    for step in range(3):
        before = task.weights()
        task.optimizer.zero_grad()
        if not task.optimizer.one_pass:
            backward(step)
        with task.optimizer.perturbed():
            backward(step)
        scaler.step(task.optimizer)
        scaler.update()
        seen.append((same(before, task.weights()), scaler.get_scale()))
    assert seen == [(False, 2.0**10), (True, 2.0**9), (False, 2.0**9)]


@everywhere
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
@pytest.mark.parametrize("variant", ["SAM", "ASAM"])
def test_compiled_steps_are_the_others(variant: str, device: str) -> None:
    """Up to rounding in float32; large enough to be compiled."""

    def train(**options: Any) -> Tensor:
        torch.manual_seed(0)
        w = nn.Parameter(torch.randn(1 << 18).to(device))
        base = torch.optim.SGD([("w", w)], lr=0.05, momentum=0.9)
        optimizer: Any = VARIANTS[variant](base, **options)
        for _ in range(3):
            optimizer.zero_grad()
            w.sin().square().mean().mul(1e4).backward()
            with optimizer.perturbed():
                w.sin().square().mean().mul(1e4).backward()
            optimizer.step()
        return w.detach()

    fused, default = train(fused=True), train()
    torch.testing.assert_close(fused, default, rtol=1e-5, atol=1e-6)
