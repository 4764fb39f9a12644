"""A random network, scaled again and again: what figures 2 to 4 look at.

A walk visits networks with the same function. They are stacked, one network a row, so that a loss
or a ball is computed for all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from flatmin import _tree as tree
from flatmin._types import Params
from flatmin.ball import Ball
from flatmin.data import figure8
from flatmin.models import ReportMLP
from flatmin.record.blocks import written
from flatmin.scale import Scale
from flatmin.symmetry import find_scalings


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """Networks that differ by scalings: the start, and the state after each step.

    Attributes:
        model: The network, for its structure.
        params: Names to tensors [steps + 1, ...].
        inputs: Points [n, 2].
        targets: Labels [n].
    """

    model: nn.Module
    params: dict[str, Tensor]
    inputs: Tensor
    targets: Tensor

    def outputs(self) -> Tensor:
        """Logits of every network, [steps + 1, n, 2]."""
        return vmap(self._logits)(self.params).detach()

    def losses(self, params: Params) -> Tensor:
        """Mean cross-entropy of every network, [steps + 1], in nats per point."""
        return vmap(self._loss)(params)

    def climb(self, rho: float, scale: Scale) -> tuple[Tensor, Tensor]:
        """The losses L(w) and L(w + ε) of every network, ε one step to the edge of the ball."""
        ball = Ball(torch.full((len(self.losses(self.params)),), rho).to(self.inputs), scale=scale)
        shift = ball.shift(self.params, vmap(grad(self._loss))(self.params))
        return self.losses(self.params), self.losses(tree.add(self.params, shift))

    def _logits(self, params: Params) -> Tensor:
        logits: Tensor = functional_call(self.model, dict(params), (self.inputs,))
        return logits

    def _loss(self, params: Params) -> Tensor:
        return cross_entropy(self._logits(params), self.targets)


def scaling_walk(
    seed: int,
    *,
    steps: int,
    points: int,
    variance: float,
    hidden_biases: bool,
    weights_only: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Walk:
    """Scale every hidden unit of the untrained toy network by U[0.5, 1.5], ``steps`` times over.

    Args:
        seed: Fixes the network, the points and the factors, whatever the dtype.
        steps: Number of scalings, each applied to the result of the one before.
        points: Number of points, divisible by 4.
        variance: Variance of the points.
        hidden_biases: Whether the hidden layers have biases.
        weights_only: Whether the biases are left unscaled, which changes the function.
        dtype: In which the network is stored; factors are applied in float64 and rounded once.

    Returns:
        The networks before the first and after every step.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = figure8(points, variance, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ReportMLP(hidden_biases).requires_grad_(False).to(dtype)
    inputs = inputs.to(dtype)
    scalings = find_scalings(model, inputs)
    if weights_only:
        scalings = scalings.weights_only()
    states: list[dict[str, Tensor]] = [dict(model.named_parameters())]
    for _ in range(steps):
        states.append(scalings.apply(states[-1], scalings.sample(generator)))
    stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    return Walk(model, stacked, inputs, targets)


def rotated(walk: Walk, count: int, seed: int) -> Walk:
    """Rotate the units between the first two layers, where no activation stands, ``count`` times.

    Another symmetry of this network than a scaling: W₁ becomes Q W₁, and W₂ becomes W₂ Qᵀ.
    """
    generator = torch.Generator().manual_seed(seed)
    start = {
        name: tensor[:1].expand(count, *tensor.shape[1:]) for name, tensor in walk.params.items()
    }
    first, second = start["first.weight"], start["hidden.0.weight"]
    size = first.shape[1]
    gauss = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(gauss)[0].to(first.dtype)
    rotation[0] = torch.eye(size)
    start["first.weight"] = rotation @ first
    start["hidden.0.weight"] = second @ rotation.mT
    return replace(walk, params=start)


def ratio(values: Tensor) -> float:
    """Largest over smallest size: one if nothing moves."""
    sizes = values.abs()
    return (sizes.max() / sizes.min()).item()


def spread(values: Tensor) -> float:
    """Largest minus smallest, over the size of the mean: zero if nothing moves."""
    return ((values.max() - values.min()) / values.mean().abs()).item()


def rounded(values: Tensor) -> list[float]:
    """Six digits, enough to draw a curve."""
    return [float(f"{value:.6g}") for value in values.tolist()]


def middle(values: Sequence[float]) -> int:
    """Index of the median; of the lower one where two share it."""
    order = sorted(range(len(values)), key=values.__getitem__)
    return order[(len(values) - 1) // 2]


def range_of(values: Sequence[float]) -> str:
    """Median and range over seeds, as text."""
    low, high = written(min(values), 3), written(max(values), 3)
    return f"median {written(median(values), 3)} [{low} … {high}]"


def median(values: Sequence[float]) -> float:
    """The median; the mean of the two in the middle where their number is even."""
    return torch.tensor(values, dtype=torch.float64).quantile(0.5).item()
