"""Networks over sequences put together at random: whatever is offered keeps the function."""

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin.symmetry import find_flips, find_permutations, find_scalings, verify

WIDTH, LENGTH = 6, 5


class Block(nn.Module):
    """What a step may use: each part once, or as often as the step says."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.c, self.over = nn.Linear(WIDTH, WIDTH), nn.Linear(LENGTH, LENGTH)
        self.wide = nn.Linear(WIDTH, 2 * WIDTH)
        self.layer_norm, self.rms_norm = nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.prelu = nn.PReLU(WIDTH)
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1, groups=random.choice([1, 2, WIDTH]))
        self.gain = nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.one = nn.Parameter(torch.rand(()) + 0.5)
        self.places = nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.cube = nn.Parameter(torch.randn(2, 3, 3))


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (2, 3)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(heads(q), heads(k), heads(v)).transpose(1, 2).flatten(2)


def cosine(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k = (t / t.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-6) for t in (q, k))
    return (q @ k.mT).softmax(-1) @ v


# From a step's own parts, the present tensor and an earlier one.
STEPS: list[Callable[[Block, Tensor, Tensor], Tensor]] = [
    lambda m, x, y: m.a(x),
    lambda m, x, y: m.b(F.relu(m.a(x))),
    lambda m, x, y: m.a(F.relu(m.a(x))),
    lambda m, x, y: m.b(F.relu(m.a(x)).square()) + y,
    lambda m, x, y: m.c(F.gelu(m.a(x)) * m.b(y)),
    lambda m, x, y: (lambda u, v: m.c(F.silu(u) * v))(*m.wide(x).chunk(2, -1)),
    lambda m, x, y: (lambda u, v: torch.cat([u[..., :3], v[..., 3:]], -1))(*m.wide(x).chunk(2, -1)),
    lambda m, x, y: F.glu(m.wide(x), -1),
    lambda m, x, y: y + m.c(attend(m.a(x), m.b(x), x)),
    lambda m, x, y: attend(x, y, m.a(x)),
    lambda m, x, y: cosine(m.a(x), m.b(y), m.c(x)),
    lambda m, x, y: (m.a(x) @ m.b(y).mT).softmax(-1) @ m.c(x),
    lambda m, x, y: F.relu(m.a(x)) @ (F.relu(m.b(x)).mT @ m.c(x)),
    lambda m, x, y: (F.relu(x) + 1e-3) / (F.relu(x).sum(-1, keepdim=True) + 1e-3),
    lambda m, x, y: x / y.abs().amax(-1, keepdim=True).clamp_min(0.1),
    lambda m, x, y: torch.einsum("blhi,hij->blhj", x.unflatten(-1, (2, 3)), m.cube).flatten(2),
    lambda m, x, y: m.layer_norm(x),
    lambda m, x, y: m.rms_norm(x) + y,
    lambda m, x, y: x + m.over(x.mT).mT,
    lambda m, x, y: m.over(F.relu(m.over(x.mT))).mT,
    lambda m, x, y: m.prelu(x.mT).mT,
    lambda m, x, y: F.relu(m.conv(x.mT).mT),
    lambda m, x, y: x * m.gain + y,
    lambda m, x, y: m.one * x - m.places,
    lambda m, x, y: x + m.places[: x.shape[1]] * m.gain,
    lambda m, x, y: x.sort(-1).values,
    lambda m, x, y: x.cumsum(1) / 4,
    lambda m, x, y: torch.where(x > y, x, y),
    lambda m, x, y: torch.maximum(x, m.a(y)),
    lambda m, x, y: x.masked_fill(y > 0, 0.0),
    lambda m, x, y: x.roll(1, 1) + y.flip(-1),
    lambda m, x, y: x.unflatten(-1, (2, 3)).mT.flatten(2),
    lambda m, x, y: x * F.linear(y, m.a.weight).sigmoid(),
    lambda m, x, y: F.linear(x, m.a.weight / m.a.weight.norm(dim=1, keepdim=True), m.a.bias),
    lambda m, x, y: F.linear(x, m.gain[:, None] * m.b.weight),
    lambda m, x, y: F.linear(F.relu(F.linear(x, m.a.weight)), m.a.weight.t()) + y,
    lambda m, x, y: F.hardtanh(m.a(x)) * y.std(-1, keepdim=True),
    lambda m, x, y: x * x.mean(1, keepdim=True).tanh(),
    lambda m, x, y: x.gather(-1, y.argmax(-1, keepdim=True)) + x,
    lambda m, x, y: F.avg_pool1d(x.mT, 3, 1, 1).mT + x.abs().mean(-1, keepdim=True),
]


class Sequences(nn.Module):
    """A chain of steps with looks back, ended by a head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        random.seed(seed)
        count = random.randint(2, 7)
        self.steps = random.choices(STEPS, k=count)
        self.back = [random.randrange(i + 1) for i in range(count)]
        self.pooled = random.random() < 0.5
        self.blocks = nn.ModuleList(Block() for _ in range(count))
        self.stem = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH if self.pooled else WIDTH * LENGTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        seen = [self.stem(x)]
        for step, back, block in zip(self.steps, self.back, self.blocks, strict=True):
            seen.append(step(block, seen[-1], seen[back]))
        x = seen[-1]
        return self.head(x.mean(1) if self.pooled else x.flatten(1))


@pytest.mark.slow
def test_whatever_is_offered_on_sequences_keeps_the_function() -> None:
    offered = {find_scalings: 0, find_permutations: 0, find_flips: 0}
    for seed in range(25):
        torch.manual_seed(seed)
        model = Sequences(seed).double().eval()
        x = torch.randn(3, LENGTH, WIDTH, dtype=torch.float64)
        for find in offered:
            found = find(model, x)
            offered[find] += len(found.groups)
            for draw in range(3):
                elements = found.sample(torch.Generator().manual_seed(draw))
                result = verify(model, found, elements, x)
                assert result.deviation <= 1e-10, f"seed {seed}\n{found}"
    # The test means something only if much is offered.
    assert all(count > 5 for count in offered.values()), offered
