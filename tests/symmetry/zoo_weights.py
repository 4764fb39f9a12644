"""Networks that share, compute or add up their weights, and residual streams."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_parts import Entry, Lin, Net, Relu, Seq, mlp, param, sequences, vectors


def residual(n: Any, x: Tensor) -> Tensor:
    x = n.stem(x)
    for up, down in zip(n.up, n.down, strict=True):
        x = x + down(F.relu(up(x)))
    return n.head(x)


def stream(forward: Callable[..., Any], **more: Any) -> nn.Module:
    """Parts of a residual network of width 4."""
    blocks = {
        "up": nn.ModuleList(Lin(4, 5) for _ in range(2)),
        "down": nn.ModuleList(Lin(5, 4) for _ in range(2)),
    }
    return Net(forward, stem=Lin(5, 4), head=Lin(4, 2), **blocks, **more)


RESIDUAL: dict[str, Entry] = {
    "residual": (lambda: stream(residual), vectors()),
    "pre-norm": (
        lambda: stream(
            lambda n, x: (lambda h: n.head(n.last(h)))(
                (lambda s: s + n.down[0](F.relu(n.up[0](n.norm(s)))))(n.stem(x))
            ),
            norm=nn.LayerNorm(4),
            last=nn.LayerNorm(4),
        ),
        vectors(),
    ),
    "layer scale": (
        lambda: stream(
            lambda n, x: (lambda s: n.head(n.norm(s + n.scale * n.down[0](F.relu(n.up[0](s))))))(
                n.stem(x)
            ),
            scale=param(4),
            norm=nn.LayerNorm(4),
        ),
        vectors(),
    ),
    "residual gain": (
        lambda: stream(
            lambda n, x: (lambda s: n.head(s + n.gain * n.down[0](F.relu(n.up[0](s)))))(n.stem(x)),
            gain=param(1),
        ),
        vectors(),
    ),
    "stochastic depth in eval": (
        lambda: stream(
            lambda n, x: (
                lambda s: n.head(
                    s
                    + (
                        n.down[0](F.relu(n.up[0](s))) * (torch.rand(len(x), 1) > 0.5)
                        if n.training
                        else n.down[0](F.relu(n.up[0](s)))
                    )
                )
            )(n.stem(x))
        ),
        vectors(),
    ),
    "used twice": (
        lambda: Net(
            lambda n, x: n.c(F.relu(n.b(F.relu(n.b(F.relu(n.a(x))))))),
            a=Lin(5, 4),
            b=Lin(4, 4),
            c=Lin(4, 2),
        ),
        vectors(),
    ),
    "tied autoencoder": (
        lambda: Net(lambda n, x: F.linear(F.relu(n.a(x)), n.a.weight.t()), a=Lin(5, 4)),
        vectors(),
    ),
    "low rank": (
        lambda: Net(
            lambda n, x: n.c(F.relu(n.b(n.a(x)))), a=Lin(5, 2, bias=False), b=Lin(2, 4), c=Lin(4, 2)
        ),
        vectors(),
    ),
    "lora": (
        lambda: Net(
            lambda n, x: n.b(F.relu(n.a(x) + 2.0 * (x @ n.down.T @ n.up.T))),
            a=Lin(5, 4),
            down=param(2, 5),
            up=param(4, 2),
            b=Lin(4, 2),
        ),
        vectors(),
    ),
    "merged lora": (
        lambda: Net(
            lambda n, x: n.b(F.relu(F.linear(x, n.a.weight + n.up @ n.down, n.a.bias))),
            a=Lin(5, 4),
            down=param(2, 5),
            up=param(4, 2),
            b=Lin(4, 2),
        ),
        vectors(),
    ),
    "weight norm": (
        lambda: Seq(nn.utils.parametrizations.weight_norm(Lin(5, 4)), Relu(), Lin(4, 2)),
        vectors(),
    ),
    "weight norm twice": (
        lambda: Seq(
            nn.utils.parametrizations.weight_norm(Lin(5, 4)),
            Relu(),
            nn.utils.parametrizations.weight_norm(Lin(4, 2)),
        ),
        vectors(),
    ),
    "weight standardization": (
        lambda: Net(
            lambda n, x: n.b(
                F.relu(
                    F.linear(
                        x,
                        (lambda w: (w - w.mean(1, keepdim=True)) / w.std(1, keepdim=True))(
                            n.a.weight
                        ),
                        n.a.bias,
                    )
                )
            ),
            a=Lin(5, 4),
            b=Lin(4, 2),
        ),
        vectors(),
    ),
    "row normalized weight": (
        lambda: Net(
            lambda n, x: n.b(F.relu(n.s * F.linear(x, F.normalize(n.a.weight, dim=1)))),
            a=Lin(5, 4),
            s=param(4),
            b=Lin(4, 2),
        ),
        vectors(),
    ),
    "matrices": (
        lambda: Net(
            lambda n, x: torch.relu(x @ n.w + n.v) @ n.u.T, w=param(5, 4), v=param(4), u=param(2, 4)
        ),
        vectors(),
    ),
    "einsum": (
        lambda: Net(
            lambda n, x: torch.einsum("bh,ho->bo", torch.einsum("bi,hi->bh", x, n.w).relu(), n.u),
            w=param(4, 5),
            u=param(4, 2),
        ),
        vectors(),
    ),
    "bilinear": (
        lambda: Net(
            lambda n, x: n.c(n.b(F.relu(n.a(x)), x)),
            a=Lin(5, 3),
            b=nn.Bilinear(3, 5, 4),
            c=Lin(4, 2),
        ),
        vectors(),
    ),
    "mixture of experts": (
        lambda: Net(
            lambda n, x: n.head(
                torch.einsum(
                    "be,beo->bo",
                    torch.softmax(n.gate(x), -1),
                    torch.einsum(
                        "beh,eho->beo", torch.einsum("bi,eih->beh", x, n.up).relu(), n.down
                    ),
                )
            ),
            gate=Lin(5, 2),
            up=param(2, 5, 3),
            down=param(2, 3, 4),
            head=Lin(4, 2),
        ),
        vectors(),
    ),
    "deep sets": (
        lambda: Net(lambda n, x: n.b(F.relu(n.a(x)).sum(1)), a=Lin(4, 5), b=Lin(5, 2)),
        sequences(),
    ),
    "largest of a set": (
        lambda: Net(lambda n, x: n.b(n.a(x).amax(1)), a=Lin(4, 5), b=Lin(5, 2)),
        sequences(),
    ),
    "graph": (
        lambda: Net(
            lambda n, x: n.b(n.adjacency @ F.relu(n.adjacency @ n.a(x))),
            a=Lin(4, 5),
            b=Lin(5, 2),
            adjacency=param(3, 3),
        ),
        sequences(),
    ),
    "cosine classifier": (
        lambda: Net(
            lambda n, x: (
                n.scale * F.linear(F.normalize(F.relu(n.a(x)), dim=-1), F.normalize(n.w, dim=-1))
            ),
            a=Lin(5, 4),
            w=param(2, 4),
            scale=param(1),
        ),
        vectors(),
    ),
    "sine": (lambda: mlp(lambda n, h: torch.sin(30 * h)), vectors()),
    "two outputs": (
        lambda: Net(
            lambda n, x: (lambda h: {"y": n.b(h), "z": n.c(h)})(F.relu(n.a(x))),
            a=Lin(5, 4),
            b=Lin(4, 2),
            c=Lin(4, 1),
        ),
        vectors(),
    ),
    "outputs its hidden units": (
        lambda: Net(
            lambda n, x: (lambda h: (n.b(h), h[:, :2]))(F.relu(n.a(x))), a=Lin(5, 4), b=Lin(4, 2)
        ),
        vectors(),
    ),
}
