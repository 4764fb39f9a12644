"""What the conformance suite runs over: optimizers, bases, and a model full of traps.

A new variant joins by one line in ``VARIANTS``; it then has to keep every promise that the tests
in ``tests/optim`` make for all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin import ASAM, GSAM, MSAM, SAM, SSAM, WSAM, AsyncSAM, FriendlySAM
from slowly import slow_but

Build = Callable[..., Optimizer]


class CoupledWSAM(WSAM):
    """WSAM by another name, for it takes another way through the step."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, decoupled=False, **options)


VARIANTS: dict[str, Build] = {
    "SAM": partial(SAM, rho=0.05),
    "ASAM": partial(ASAM, rho=0.5),
    "GSAM": partial(GSAM, rho=0.05),
    "FriendlySAM": partial(FriendlySAM, rho=0.05),
    "WSAM": partial(WSAM, rho=0.05),
    "CoupledWSAM": partial(CoupledWSAM, rho=0.05),
    "SSAM": partial(SSAM, rho=0.05),
}

ONE_PASS: dict[str, Build] = {
    "MSAM": partial(MSAM, rho=0.05),
    "AsyncSAM": partial(AsyncSAM, rho=0.05),
}

BASES: dict[str, Build] = {
    "SGD": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "Adam": partial(torch.optim.Adam, lr=0.01),
    "AdamW": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
    "RMSprop": partial(torch.optim.RMSprop, lr=0.01, alpha=0.9),
    "Adadelta": partial(torch.optim.Adadelta, lr=0.5, rho=0.8),
}


# What all climb with is tested with these; the others bring only what they do with gradients.
ORIGINALS = ("SAM", "ASAM")
OTHERS_SLOWLY = slow_but(VARIANTS, *ORIGINALS)

# They take a perturbation for each part of a batch.
IN_PARTS = [variant for variant in VARIANTS if variant not in ("FriendlySAM", "WSAM")]


def pairs(variants: Iterable[str] = VARIANTS) -> list[Any]:
    """Variants with bases; the originals meet two of them in fast tests, the others one."""
    return slow_but(
        itertools.product(variants, BASES),
        *((variant, "SGD") for variant in variants),
        *((variant, "AdamW") for variant in variants if variant in ORIGINALS),
    )


PAIRS = pairs()


class Careless(SAM):
    """A wrapper with the usual faults, so that each check can be seen to fail.

    It adds and subtracts the shift instead of copying the weights back, leaves on an exception
    without doing so, and believes every gradient.
    """

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        self._visit.ever = True
        params = [p for group in self.param_groups for p in group["params"]]
        grads = [p.grad for p in params if p.grad is not None]
        norm = torch.stack([g.float().norm() for g in grads]).norm() if grads else torch.tensor(1.0)
        shifts = {}
        with torch.no_grad():
            for p in params:
                if p.grad is not None:
                    shifts[p] = (0.5 * p.grad.float() / norm).to(p.dtype)
                    p.add_(shifts[p])
        self.base.zero_grad()
        yield
        with torch.no_grad():
            for p in params:
                if p.grad is not None and p in shifts:
                    p.sub_(shifts[p])


class Zoo(nn.Module):
    """Parameters of every kind that a user has: tied, frozen, views, unused, channels last."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape).to(dtype))

        self.weight = draw(5, 4)
        self.bias = draw(5)
        self.tied = self.weight
        self.frozen = draw(5).requires_grad_(False)
        self.image = nn.Parameter(draw(2, 3, 2, 2).data.to(memory_format=torch.channels_last))
        self.buffer = torch.randn(12).to(dtype)
        self.left = nn.Parameter(self.buffer[:4])
        self.right = nn.Parameter(self.buffer[6:].view(2, 3))
        self.branch = draw(3)
        self.scalar = draw()

    def forward(self, branch: bool = True) -> Tensor:
        x = torch.linspace(-1, 1, 4, dtype=self.weight.dtype)
        terms = [
            self.weight @ x + self.bias * self.frozen,
            (self.tied.t() * self.bias).sin().flatten(),
            self.image.mul(self.scalar).tanh().flatten(),
            (self.right @ self.left[:3]).cos(),
        ]
        if branch:
            terms.append(self.branch.square())
        return torch.cat(terms).square().mean()


def bits(module: nn.Module) -> dict[str, tuple[int, bytes]]:
    """Where each parameter lies, and every bit of it."""
    return {
        name: (p.data_ptr(), p.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        for name, p in module.named_parameters(remove_duplicate=False)
    }


def assert_same_bits(before: dict[str, Any], module: nn.Module) -> None:
    after = bits(module)
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"changed: {', '.join(changed)}"


def same(one: Any, other: Any) -> bool:
    """Whether two nested structures hold the same numbers, bit for bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def build(variant: str, base: str, module: nn.Module, **options: Any) -> Any:
    """An optimizer over named parameters; lr and eps go to the base, the rest to the variant."""
    of_base = {key: options.pop(key) for key in ("lr", "eps") if key in options}
    return VARIANTS[variant](BASES[base](module.named_parameters(), **of_base), **options)
