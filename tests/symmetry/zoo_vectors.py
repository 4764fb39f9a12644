"""Perceptrons in current styles: activations, normalizations, gates."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_parts import Entry, Lin, Net, Relu, Seq, mlp, param, vectors


def hand_norm(n: Any, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


PERCEPTRONS: dict[str, Entry] = {
    "relu": (lambda: mlp(lambda n, h: F.relu(h)), vectors()),
    "leaky relu": (lambda: mlp(lambda n, h: F.leaky_relu(h, 0.1)), vectors()),
    "gelu": (lambda: mlp(lambda n, h: F.gelu(h)), vectors()),
    "no activation": (lambda: mlp(lambda n, h: h), vectors()),
    "abs": (lambda: mlp(lambda n, h: h.abs()), vectors()),
    "squared relu": (lambda: mlp(lambda n, h: F.relu(h) ** 2), vectors()),
    "square root": (
        lambda: mlp(lambda n, h: h.abs().sqrt()),
        vectors(),
    ),
    "expanded as another": (
        lambda: mlp(lambda n, h: F.relu(h) * h[:, :1].sigmoid().expand_as(h)),
        vectors(),
    ),
    "clamp at zero": (lambda: mlp(lambda n, h: h.clamp(min=0)), vectors()),
    "maximum with zero": (
        lambda: mlp(lambda n, h: torch.maximum(h, torch.zeros_like(h))),
        vectors(),
    ),
    "where positive": (lambda: mlp(lambda n, h: torch.where(h > 0, h, 0.1 * h)), vectors()),
    "negative mask": (lambda: mlp(lambda n, h: h.masked_fill(h < 0, 0.0)), vectors()),
    "mask product": (lambda: mlp(lambda n, h: h * (h > 0)), vectors()),
    "concatenated relu": (
        lambda: mlp(lambda n, h: torch.cat([F.relu(h), F.relu(-h)], 1), out=12),
        vectors(),
    ),
    "maxout": (lambda: mlp(lambda n, h: h.unflatten(-1, (3, 2)).amax(-1), out=3), vectors()),
    "halves swapped": (lambda: mlp(lambda n, h: torch.cat(h.chunk(2, -1)[::-1], -1)), vectors()),
    "half of them": (lambda: mlp(lambda n, h: F.relu(h[:, ::2]), out=3), vectors()),
    "some of them": (lambda: mlp(lambda n, h: h[:, [0, 2, 2]], out=3), vectors()),
    "stacked": (
        lambda: mlp(lambda n, h: torch.stack([h, F.relu(h)], 1).flatten(1), out=12),
        vectors(),
    ),
    "rolled and added": (lambda: mlp(lambda n, h: h + h.roll(2, -1)), vectors()),
    "prelu": (lambda: Seq(Lin(5, 6), nn.PReLU(6), Lin(6, 2)), vectors()),
    "dropout in eval": (lambda: Seq(Lin(5, 6), Relu(), nn.Dropout(0.3), Lin(6, 2)), vectors()),
    "batch norm": (lambda: Seq(Lin(5, 6), nn.BatchNorm1d(6), Relu(), Lin(6, 2)), vectors()),
    "batch norm first": (lambda: Seq(nn.BatchNorm1d(5), Lin(5, 6), Relu(), Lin(6, 2)), vectors()),
    "layer norm": (lambda: Seq(Lin(5, 6), nn.LayerNorm(6), Relu(), Lin(6, 2)), vectors()),
    "rms norm": (lambda: Seq(Lin(5, 6), nn.RMSNorm(6, 1e-3), Lin(6, 2)), vectors()),
    "rms norm by hand": (
        lambda: Net(
            lambda n, x: n.b(n.gain * hand_norm(n, n.a(x))), a=Lin(5, 6), b=Lin(6, 2), gain=param(6)
        ),
        vectors(),
    ),
    "layer norm by hand": (
        lambda: Net(
            lambda n, x: n.b(
                n.gain
                * (
                    lambda h: (
                        (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True) + 1e-5).sqrt()
                    )
                )(n.a(x))
                + n.bias
            ),
            a=Lin(5, 6),
            b=Lin(6, 2),
            gain=param(6),
            bias=param(6),
        ),
        vectors(),
    ),
    "one plus gain": (
        lambda: Net(
            lambda n, x: n.b((1 + n.gain) * hand_norm(n, n.a(x))),
            a=Lin(5, 6),
            b=Lin(6, 2),
            gain=param(6),
        ),
        vectors(),
    ),
    "unit length": (lambda: mlp(lambda n, h: F.normalize(F.relu(h), dim=-1)), vectors()),
    "softmax": (lambda: mlp(lambda n, h: torch.softmax(h, -1)), vectors()),
    "glu": (lambda: mlp(lambda n, h: F.glu(h), out=3), vectors()),
    "reglu": (
        lambda: Net(
            lambda n, x: n.c(F.relu(n.a(x)) * n.b(x)), a=Lin(5, 4), b=Lin(5, 4), c=Lin(4, 2)
        ),
        vectors(),
    ),
    "swiglu": (
        lambda: Net(
            lambda n, x: n.c(F.silu(n.a(x)) * n.b(x)), a=Lin(5, 4), b=Lin(5, 4), c=Lin(4, 2)
        ),
        vectors(),
    ),
    "swiglu, fused": (
        lambda: mlp(lambda n, h: (lambda g, u: F.silu(g) * u)(*h.chunk(2, -1)), out=3),
        vectors(),
    ),
    "geglu": (lambda: mlp(lambda n, h: F.gelu(h[..., :3]) * h[..., 3:], out=3), vectors()),
    "highway": (
        lambda: Net(
            lambda n, x: (lambda h, t: n.c(t * n.b(h) + (1 - t) * h))(
                F.relu(n.a(x)), torch.sigmoid(n.g(x))
            ),
            a=Lin(5, 4),
            b=Lin(4, 4),
            g=Lin(5, 4),
            c=Lin(4, 2),
        ),
        vectors(),
    ),
}
