"""Trained networks and their rescaled copies, for the tests of measures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin import EmpiricalLoss
from flatmin.data import figure8
from flatmin.models import ReportMLP
from flatmin.symmetry import find_scalings

State = dict[str, Tensor]


class Trained(NamedTuple):
    """A network, its data, and the data as an objective."""

    model: nn.Module
    data: tuple[Tensor, Tensor]
    loss: EmpiricalLoss


def trained(seed: int, *, steps: int = 60, dtype: torch.dtype = torch.float64) -> Trained:
    """Train the report's network, with biases, on figure 8."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ReportMLP().double()
    generator = torch.Generator().manual_seed(seed)
    points, labels = figure8(200, 5.0, generator=generator, dtype=torch.float64)
    order = torch.randperm(200, generator=generator)
    points, labels = points[order], labels[order]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(points), labels).backward()
        optimizer.step()
    model.zero_grad()
    model, points = model.to(dtype), points.to(dtype)
    return Trained(
        model, (points, labels), EmpiricalLoss(model, F.cross_entropy, [(points, labels)])
    )


def orbit(net: Trained, count: int, *, seed: int = 0) -> Iterator[State]:
    """Give the network's own parameters, and then those of ``count`` cumulative rescalings."""
    scalings = find_scalings(net.model, net.data[0][:2])
    generator = torch.Generator().manual_seed(seed)
    state = {name: p.detach().clone() for name, p in net.model.named_parameters()}
    yield state
    for _ in range(count):
        state = scalings.apply(state, scalings.sample(generator))
        yield state


def spread(values: list[float]) -> float:
    """(max − min) / |mean|."""
    return (max(values) - min(values)) / abs(sum(values) / len(values))


class Counting:
    """An objective that counts what is asked of it."""

    def __init__(self, objective: EmpiricalLoss) -> None:
        self.objective = objective
        self.forwards = self.gradients = self.hvps = 0

    def value(self, params: State) -> Tensor:
        self.forwards += 1
        return self.objective.value(params)

    def value_and_grad(self, params: State) -> tuple[Tensor, State]:
        self.gradients += 1
        return self.objective.value_and_grad(params)

    def hvp(self, params: State, vector: State) -> State:
        self.hvps += 1
        return self.objective.hvp(params, vector)
