"""Networks of many kinds, small enough for all of their Hessian."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

Batches = list[tuple[Any, Tensor]]
LossFunction = Callable[[Any, Tensor], Tensor]


class Small(NamedTuple):
    """A network, its loss and two batches of unequal size."""

    model: nn.Module
    loss: LossFunction
    batches: Batches


class Residual(nn.Module):
    """Two convolutions around a sum, statistics of batch normalization in use."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.norm = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.inner, self.last = nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        first = F.silu(self.norm(self.inward(x)))
        out: Tensor = self.last((first + torch.tanh(self.inner(first))).mean((2, 3)))
        return out


class Attention(nn.Module):
    """A layer of attention over an embedding whose matrix also gives the logits."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.causal = causal

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x = self.embed(tokens)
        size = tokens.shape[1]
        mask = torch.ones(size, size, dtype=torch.bool).triu(1) if self.causal else None
        x = self.norm(x + self.attend(x, x, x, attn_mask=mask, need_weights=False)[0])
        return {"logits": x @ self.embed.weight.T}


class Recurrent(nn.Module):
    """The last state of a recurrent layer, read out."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.last = layer, nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.layer(x)[0][:, -1])
        return out


class Gated(nn.Module):
    """A product of two branches, normalized by the root of a mean of squares."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(4) + 0.5)
        self.gate, self.up, self.down = (nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.gain * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out


class Twice(nn.Module):
    """One layer called twice, and one of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.pair = nn.Linear(4, 4), nn.Bilinear(4, 3, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.pair(torch.tanh(self.same(torch.tanh(self.same(x)))), y)
        return out


def classes(model: nn.Module, shape: tuple[int, ...], count: int) -> Small:
    """Cross-entropy on random inputs."""
    return Small(
        model,
        F.cross_entropy,
        [(torch.randn(n, *shape), torch.randint(count, (n,))) for n in (5, 3)],
    )


def words(model: nn.Module) -> Small:
    """Cross-entropy at each of four places."""
    return Small(
        model,
        lambda outputs, targets: F.cross_entropy(
            outputs["logits"].flatten(0, 1), targets.flatten()
        ),
        [(torch.randint(5, (n, 4)), torch.randint(5, (n, 4))) for n in (4, 2)],
    )


def numbers(model: nn.Module, shape: tuple[int, ...], loss: LossFunction) -> Small:
    """A loss that compares outputs with numbers between 0 and 1."""
    inputs = [torch.randn(n, *shape) for n in (5, 3)]
    return Small(model, loss, [(x, torch.rand(len(x), *model(x).shape[1:])) for x in inputs])


def images(*middle: nn.Module) -> nn.Module:
    """A convolutional network."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), *middle, nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 2)
    )


def networks() -> Iterator[tuple[str, Small]]:
    """Make them all, in the default type."""
    yield "perceptron", classes(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), (4,), 3)
    yield (
        "deep, relu",
        classes(
            nn.Sequential(*[m for _ in range(3) for m in (nn.Linear(5, 5), nn.ReLU())]), (5,), 5
        ),
    )
    yield "convolutions", classes(images(), (1, 6, 6), 2)
    yield "batch norm, eval", classes(images(nn.BatchNorm2d(3)).eval(), (1, 6, 6), 2)
    yield "batch norm, train", classes(images(nn.BatchNorm2d(3)), (1, 6, 6), 2)
    yield "residual", classes(Residual().eval(), (1, 5, 5), 2)
    yield "group norm", classes(images(nn.GroupNorm(1, 3)), (1, 6, 6), 2)
    yield (
        "layer norm",
        classes(
            nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3)), (4,), 3
        ),
    )
    yield "attention, tied", words(Attention(causal=False))
    yield "causal attention, tied", words(Attention(causal=True))
    yield "gru", classes(Recurrent(nn.GRU(2, 3, batch_first=True)), (4, 2), 2)
    yield "lstm", classes(Recurrent(nn.LSTM(2, 3, batch_first=True)), (4, 2), 2)
    yield "gated, rms norm", classes(Gated(), (4,), 3)
    twice = Twice()
    yield (
        "called twice, two inputs",
        Small(
            twice,
            F.cross_entropy,
            [((torch.randn(n, 4), torch.randn(n, 3)), torch.randint(2, (n,))) for n in (5, 3)],
        ),
    )
    yield (
        "weight norm, regression",
        numbers(
            nn.Sequential(weight_norm(nn.Linear(4, 5)), nn.Softplus(), nn.Linear(5, 2)),
            (4,),
            F.mse_loss,
        ),
    )
    yield (
        "transposed convolution, several labels",
        numbers(
            nn.Sequential(nn.ConvTranspose2d(1, 2, 3), nn.Sigmoid(), nn.Conv2d(2, 1, 3)),
            (1, 3, 3),
            F.binary_cross_entropy_with_logits,
        ),
    )


def made() -> dict[str, Small]:
    """The same numbers each time, in float64, the caller's random state untouched."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found = dict(networks())
            for small in found.values():
                for p in small.model.parameters():  # no number that initialization left at zero
                    nn.init.normal_(p, 0.1, 1 / math.sqrt(max(p.shape[-1], 2)))
    finally:
        torch.set_default_dtype(before)
    return found
