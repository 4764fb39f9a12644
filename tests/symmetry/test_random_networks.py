"""Networks put together at random: whatever is offered on them keeps the function."""

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin.symmetry import find_flips, find_permutations, find_scalings, verify

# From a step's own layers, the present tensor and an earlier one.
Step = Callable[[nn.ModuleDict, Tensor, Tensor, Tensor], Tensor]

STEPS: list[Step] = [
    lambda m, gain, x, y: m["conv"](x),
    lambda m, gain, x, y: F.relu(m["conv"](x)),
    lambda m, gain, x, y: F.relu(m["norm"](x)),
    lambda m, gain, x, y: m["norm"](m["conv"](x)),
    lambda m, gain, x, y: x + y,
    lambda m, gain, x, y: m["conv"](F.leaky_relu(x)) - y,
    lambda m, gain, x, y: x * torch.sigmoid(m["conv"](y)),
    lambda m, gain, x, y: torch.sigmoid(x) * y,
    lambda m, gain, x, y: x * y,
    lambda m, gain, x, y: x * gain,
    lambda m, gain, x, y: x + gain,
    lambda m, gain, x, y: gain * y + 2 * x / 3,
    lambda m, gain, x, y: torch.tanh(x),
    lambda m, gain, x, y: x.transpose(2, 3),
    lambda m, gain, x, y: x.flatten(2).view(-1, 4, 4, 4),
    lambda m, gain, x, y: x.reshape(-1, 2, 2, 4, 4).transpose(1, 2).reshape(-1, 4, 4, 4),
    lambda m, gain, x, y: F.max_pool2d(x, 3, 1, 1),
    lambda m, gain, x, y: F.avg_pool2d(x, 3, 1, 1) + x.mean((2, 3), keepdim=True),
    lambda m, gain, x, y: torch.cat([x[:, :2], y[:, 2:]], 1),
    lambda m, gain, x, y: x + x.mean(1, keepdim=True),
    lambda m, gain, x, y: m["conv"](F.relu(m["conv"](x))),
    lambda m, gain, x, y: F.gelu(x).permute(0, 1, 3, 2),
    lambda m, gain, x, y: x.clone().mul_(2.0).add_(y),
]


class Random(nn.Module):
    """A chain of steps with looks back, ended by a head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        choices = random.Random(seed)
        count = choices.randint(3, 9)
        self.steps = choices.choices(STEPS, k=count)
        self.back = [choices.randrange(i + 1) for i in range(count)]
        self.pooled = choices.random() < 0.5
        self.layers, self.gains = nn.ModuleList(), nn.ParameterList()
        for _ in range(count):
            conv = nn.Conv2d(4, 4, 3, padding=1, groups=choices.choice([1, 1, 2, 4]))
            norm = nn.BatchNorm2d(4, affine=choices.random() < 0.7)
            self.layers.append(nn.ModuleDict({"conv": conv, "norm": norm}))
            self.gains.append(nn.Parameter(torch.rand(4, 1, 1) + 0.5))
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.head = nn.Linear(4 if self.pooled else 64, 3)

    def forward(self, x: Tensor) -> Tensor:
        seen = [F.relu(self.stem(x))]
        for step, back, m, gain in zip(self.steps, self.back, self.layers, self.gains, strict=True):
            seen.append(step(m, gain, seen[-1], seen[back]))
        x = seen[-1]
        return self.head(x.mean((2, 3)) if self.pooled else torch.flatten(x, 1))


SEEDS = 25


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 100, SEEDS))
def test_whatever_is_offered_keeps_the_function(first: int) -> None:
    offered = {find_scalings: 0, find_permutations: 0, find_flips: 0}
    for seed in range(first, first + SEEDS):
        torch.manual_seed(seed)
        model = Random(seed).double()
        x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
        model(x)
        model.train(seed % 3 == 0)
        generator = torch.Generator().manual_seed(seed)
        for find in offered:
            found = find(model, x)
            offered[find] += len(found.groups)
            result = verify(model, found, found.sample(generator), x)
            assert result.deviation <= 1e-11, f"seed {seed}\n{found}"
    # The test means something only if much is offered.
    assert all(count > SEEDS // 10 for count in offered.values()), offered
