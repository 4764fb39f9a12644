"""What small networks in current styles are put together from."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Parts by name, and what is done with them."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.run = forward

    def forward(self, *inputs: Any, **more: Any) -> Any:
        return self.run(self, *inputs, **more)


def param(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def vectors(size: int = 5) -> Callable[[], Tensor]:
    return lambda: torch.randn(4, size)


def images(channels: int = 2, side: int = 6) -> Callable[[], Tensor]:
    return lambda: torch.randn(2, channels, side, side)


def sequences(size: int = 4, length: int = 3) -> Callable[[], Tensor]:
    return lambda: torch.randn(2, length, size)


def tokens(count: int = 6) -> Callable[[], Tensor]:
    return lambda: torch.randint(count, (3, 4))


Lin, Conv, Seq, Relu = nn.Linear, nn.Conv2d, nn.Sequential, nn.ReLU
Entry = tuple[Callable[[], nn.Module], Callable[[], Any]]


def mlp(middle: Callable[..., Any], width: int = 6, out: int | None = None) -> nn.Module:
    """A hidden layer whose units go through ``middle``."""
    return Net(
        lambda n, x: n.b(middle(n, n.a(x))),
        a=Lin(5, width),
        b=Lin(width if out is None else out, 2),
    )
