"""Attention, recurrence and embeddings in current styles."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_parts import Conv, Entry, Lin, Net, Seq, images, param, sequences, tokens


def heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def turned(x: Tensor) -> Tensor:
    """Rotary positions."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2])[:, None] * torch.arange(1, half + 1)
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    cos, sin = torch.cat([cos, cos], -1), torch.cat([sin, sin], -1)
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def attend(
    n: Any, x: Tensor, count: int = 2, groups: int = 2, rotary: bool = False, causal: bool = False
) -> Tensor:
    q, k, v = heads(n.q(x), count), heads(n.k(x), groups), heads(n.v(x), groups)
    q, k = (turned(q), turned(k)) if rotary else (q, k)
    k, v = (t.repeat_interleave(count // groups, 1) for t in (k, v))
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
    return n.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def attention(width: int = 4, groups: int = 2, **more: Any) -> nn.Module:
    keys = width * groups // 2
    parts = {"q": Lin(4, width), "k": Lin(4, keys), "v": Lin(4, keys), "o": Lin(width, 4)}
    return Net(
        lambda n, x: n.head(attend(n, x, groups=groups, **more).mean(1)), **parts, head=Lin(4, 2)
    )


SEQUENCES: dict[str, Entry] = {
    "one head": (
        lambda: Net(
            lambda n, x: n.o(torch.softmax(n.q(x) @ n.k(x).mT / 2, -1) @ n.v(x)),
            q=Lin(4, 3),
            k=Lin(4, 3),
            v=Lin(4, 3),
            o=Lin(3, 2),
        ),
        sequences(),
    ),
    "two heads": (attention, sequences()),
    "causal": (lambda: attention(causal=True), sequences()),
    "rotary": (lambda: attention(width=8, rotary=True), sequences()),
    "grouped queries": (lambda: attention(groups=1), sequences()),
    "grouped by torch": (
        lambda: Net(
            lambda n, x: n.o(
                F.scaled_dot_product_attention(
                    heads(n.q(x), 2),
                    heads(n.k(x), 1),
                    heads(n.v(x), 1),
                    is_causal=True,
                    enable_gqa=True,
                )
                .transpose(1, 2)
                .flatten(2)
            ),
            q=Lin(4, 4),
            k=Lin(4, 2),
            v=Lin(4, 2),
            o=Lin(4, 2),
        ),
        sequences(),
    ),
    "one projection": (
        lambda: Net(
            lambda n, x: (
                lambda q, k, v: n.o(
                    F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
                )
            )(*n.qkv(x).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4).unbind(0)),
            qkv=Lin(4, 12),
            o=Lin(4, 2),
        ),
        sequences(),
    ),
    "normalized queries": (
        lambda: Net(
            lambda n, x: n.o(torch.softmax(n.qn(n.q(x)) @ n.kn(n.k(x)).mT, -1) @ n.v(x)),
            q=Lin(4, 3),
            k=Lin(4, 3),
            v=Lin(4, 3),
            qn=nn.RMSNorm(3, 1e-3),
            kn=nn.RMSNorm(3, 1e-3),
            o=Lin(3, 2),
        ),
        sequences(),
    ),
    "multihead attention": (
        lambda: Net(
            lambda n, x: n.head(n.mha(x, x, x, need_weights=False)[0]),
            mha=nn.MultiheadAttention(4, 2, batch_first=True),
            head=Lin(4, 2),
        ),
        sequences(),
    ),
    "cross attention": (
        lambda: Net(
            lambda n, x: n.head(n.mha(n.a(x), x, x)[0]),
            a=Lin(4, 4),
            mha=nn.MultiheadAttention(4, 2, batch_first=True, kdim=4, vdim=4),
            head=Lin(4, 2),
        ),
        sequences(),
    ),
    "encoder layer": (
        lambda: Seq(nn.TransformerEncoderLayer(4, 2, 5, 0.1, batch_first=True), Lin(4, 2)),
        sequences(),
    ),
    "encoder layer, gelu first": (
        lambda: Seq(
            nn.TransformerEncoderLayer(4, 2, 5, 0.0, "gelu", batch_first=True, norm_first=True),
            nn.LayerNorm(4),
            Lin(4, 2),
        ),
        sequences(),
    ),
    "decoder layer": (
        lambda: Net(
            lambda n, x: n.head(n.d(x, x.flip(1))),
            d=nn.TransformerDecoderLayer(4, 2, 4, 0.0, batch_first=True),
            head=Lin(4, 2),
        ),
        sequences(),
    ),
    "language model": (
        lambda: Net(
            lambda n, t: F.linear(
                n.norm((lambda h: h + n.down(F.relu(n.up(h))))(n.table(t) + n.place[: t.shape[1]])),
                n.table.weight,
            ),
            table=nn.Embedding(6, 4),
            place=param(5, 4),
            up=Lin(4, 5),
            down=Lin(5, 4),
            norm=nn.LayerNorm(4),
        ),
        tokens(),
    ),
    "bag of embeddings": (
        lambda: Net(lambda n, t: n.b(n.table(t).mean(1)), table=nn.Embedding(6, 4), b=Lin(4, 2)),
        tokens(),
    ),
    "tied embeddings": (
        lambda: Net(
            lambda n, t: n.a(n.table(t)) @ n.table.weight.T,
            table=nn.Embedding(6, 4),
            a=Lin(4, 4, bias=False),
        ),
        tokens(),
    ),
    "patches": (
        lambda: Net(
            lambda n, x: (lambda h: n.head(n.norm(h + n.o(F.relu(n.v(h))))[:, 0]))(
                torch.cat([n.cls.expand(len(x), -1, -1), n.stem(x).flatten(2).mT], 1) + n.place
            ),
            stem=Conv(2, 4, 3, 3),
            cls=param(1, 1, 4),
            place=param(1, 5, 4),
            v=Lin(4, 3),
            o=Lin(3, 4),
            norm=nn.LayerNorm(4),
            head=Lin(4, 2),
        ),
        images(),
    ),
    "mixer": (
        lambda: Net(
            lambda n, x: (lambda h: n.head((h + n.d(F.relu(n.c(h)))).mean(1)))(
                (lambda s: s + n.b(F.relu(n.a(s.mT))).mT)(n.stem(x))
            ),
            stem=Lin(4, 3),
            a=Lin(3, 5),
            b=Lin(5, 3),
            c=Lin(3, 4),
            d=Lin(4, 3),
            head=Lin(3, 2),
        ),
        sequences(),
    ),
    "linear attention": (
        lambda: Net(
            lambda n, x: n.o(
                (lambda q, k: (q @ (k.mT @ n.v(x))) / (q @ k.sum(1)[..., None] + 1e-6))(
                    F.relu(n.q(x)), F.relu(n.k(x))
                )
            ),
            q=Lin(4, 3),
            k=Lin(4, 3),
            v=Lin(4, 3),
            o=Lin(3, 2),
        ),
        sequences(),
    ),
    "relu recurrence": (
        lambda: Net(
            lambda n, x: n.b(n.a(x)[0][:, -1]),
            a=nn.RNN(4, 3, nonlinearity="relu", batch_first=True),
            b=Lin(3, 2),
        ),
        sequences(),
    ),
    "tanh recurrence": (
        lambda: Net(lambda n, x: n.b(n.a(x)[0]), a=nn.RNN(4, 3, batch_first=True), b=Lin(3, 2)),
        sequences(),
    ),
    "lstm": (
        lambda: Net(
            lambda n, x: n.b(n.a(x)[0][:, -1]), a=nn.LSTM(4, 3, batch_first=True), b=Lin(3, 2)
        ),
        sequences(),
    ),
    "gated recurrence": (
        lambda: Net(
            lambda n, x: n.c(F.relu(n.b(n.a(x)[0]))),
            a=nn.GRU(4, 3, batch_first=True),
            b=Lin(3, 4),
            c=Lin(4, 2),
        ),
        sequences(),
    ),
    "linear recurrence": (
        lambda: Net(
            lambda n, x: (lambda u: n.o(torch.stack([u[:, 0], u[:, 1] + n.decay * u[:, 0]], 1)))(
                n.i(x)
            ),
            i=Lin(4, 3),
            decay=param(3),
            o=Lin(3, 2),
        ),
        sequences(),
    ),
    "keywords": (
        lambda: Net(lambda n, *, x, mask: n.b(F.relu(n.a(x)) * mask), a=Lin(5, 4), b=Lin(4, 2)),
        lambda: {"x": torch.randn(4, 5), "mask": torch.ones(4, 1)},
    ),
}
