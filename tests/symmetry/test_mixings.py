"""Matrices that mix units: what is found, that it is true, and that certificates tell."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo import ZOO, built

from flatmin import Elementwise, EmpiricalLoss, Identity
from flatmin.sharpness import gradient_norm
from flatmin.symmetry import (
    Mixing,
    certify,
    find_mixings,
    find_scalings,
    mix,
    rescale,
    verify,
)
from slowly import slow_but

# Heads × width of what is known by looking at the network.
KNOWN = {
    "relu": [],
    "gelu": [],
    "layer norm": [],
    "no activation": [(1, 6)],
    "low rank": [(1, 2)],
    "depthwise": [(1, 3)],
    "one head": [(1, 3), (1, 3)],
    "two heads": [(2, 2), (2, 2), (1, 4)],
    "causal": [(2, 2), (2, 2), (1, 4)],
    "one projection": [(2, 2), (2, 2)],
    "rotary": [(2, 4), (1, 4)],  # positions turn queries and keys: only values and outputs
    "normalized queries": [(1, 3)],
    "encoder layer": [(2, 2), (2, 2)],
    "grouped queries": [(1, 2), (1, 2), (1, 4)],
    "tied embeddings": [(1, 4)],
}


@pytest.mark.parametrize(
    "name", slow_but(KNOWN, "relu", "low rank", "one head", "tied embeddings", "normalized queries")
)
def test_what_is_known_is_found_and_keeps_the_outputs(name: str) -> None:
    model, example = built(name)
    found = find_mixings(model, example)
    assert [(g.heads, g.width) for g in found.groups if isinstance(g, Mixing)] == KNOWN[name]
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        assert verify(model, found, found.sample(generator), example).deviation <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_no_false_claim(name: str) -> None:
    """On inputs drawn anew, which the search has not seen."""
    model, example = built(name)
    found = find_mixings(model, example)
    if not found.groups:
        return
    generator = torch.Generator().manual_seed(1)
    for draw in range(20):
        if isinstance(example, Tensor) and example.is_floating_point():
            example = torch.randn(example.shape, dtype=example.dtype, generator=generator)
        deviation = verify(model, found, found.sample(generator), example).deviation
        assert deviation <= 1e-10, draw


def test_by_hand() -> None:
    """M W₁, M b₁ and W₂ M⁻¹."""
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 4)).double()
    found = find_mixings(model, torch.ones(1, 5, dtype=torch.float64))
    (m,) = (element[0] for element in found.sample(torch.Generator().manual_seed(0)))
    before = copy.deepcopy(model)
    mix(model, found, [m[None]])
    torch.testing.assert_close(model[0].weight, m @ before[0].weight)
    torch.testing.assert_close(model[0].bias, m @ before[0].bias)
    torch.testing.assert_close(model[1].weight, before[1].weight @ torch.linalg.inv(m))
    assert torch.equal(model[1].bias, before[1].bias)


class Interleaved(nn.Module):
    """Heads whose units lie interleaved."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.o = nn.Linear(4, 6), nn.Linear(6, 3)
        self.scores = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.v(x).unflatten(-1, (3, 2))  # unit 2 d + h is entry d of head h
        weights = torch.softmax(self.scores(x), 0)  # examples, heads
        out: Tensor = self.o(torch.einsum("nh,ndh->ndh", weights, heads).flatten(1))
        return out


@pytest.mark.slow
def test_interleaved_heads() -> None:
    torch.manual_seed(0)
    found = find_mixings(Interleaved().double(), torch.randn(5, 4, dtype=torch.float64))
    assert [(g.heads, g.width) for g in found.groups if isinstance(g, Mixing)] == [(2, 3)]


class Hidden(nn.Module):
    """Linear on ordinary inputs, but for one unit that is cut where it is large."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = torch.cat([h[:, :1], F.leaky_relu(h[:, 1:2], 0.999), h[:, 2:]], 1)
        out: Tensor = self.b(h)
        return out


def test_a_weak_nonlinearity_is_seen() -> None:
    torch.manual_seed(0)
    found = find_mixings(Hidden().double(), torch.randn(5, 4, dtype=torch.float64))
    assert not found.groups
    assert any("when these units are mixed" in stop.reason for stop in found.stopped)


def objective(model: nn.Module, x: Tensor) -> EmpiricalLoss:
    targets = torch.zeros(len(x), *model(x).shape[1:], dtype=x.dtype)
    return EmpiricalLoss(model, F.mse_loss, [(x, targets)])


@pytest.mark.slow
def test_an_elementwise_scale_does_not_follow_and_the_verdict_says_so() -> None:
    model, x = built("two heads")

    def elementwise(network: nn.Module) -> float:
        loss = objective(network, x)
        return gradient_norm(loss, loss.params, scale=Elementwise()).value

    def plain(network: nn.Module) -> float:
        loss = objective(network, x)
        return gradient_norm(loss, loss.params, scale=Identity()).value

    def of_outputs(network: nn.Module) -> float:
        return objective(network, x).value({}).item()

    kind = "(1 of 4 × 4, 4 of 2 × 2)"
    result = certify(elementwise, model, x, num_scalings=3)
    assert result.invariant and result.mixed_spread > 1e-3
    assert f"; NOT invariant under the matrices that mix units {kind}: spread" in result.verdict
    assert certify(plain, model, x, num_scalings=3).mixed_spread > 1e-3
    followed = certify(of_outputs, model, x, num_scalings=3)
    assert followed.mixed_spread <= 1e-12
    assert f"; also unchanged under the matrices that mix units {kind}" in followed.verdict
    void = dataclasses.replace(followed, mixed_deviations=(0.0, 1.0, 0.0))
    assert void.verdict.endswith("void under matrices that mix units: the outputs moved by 1.0e+00")
    alone = certify(elementwise, model, x, scalings=find_scalings(model, x), num_scalings=3)
    assert "mix" not in alone.verdict


def test_what_is_refused() -> None:
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 4)).double()
    x = torch.ones(1, 5, dtype=torch.float64)
    found = find_mixings(model, x)
    with pytest.raises(ValueError, match="of group 0 must be finite and invertible"):
        mix(model, found, [torch.ones(1, 3, 3)])
    with pytest.raises(ValueError, match="of group 0 must be finite and invertible"):
        mix(model, found, [torch.full((1, 3, 3), torch.nan)])
    with pytest.raises(ValueError, match=r"of shapes \[\(1, 3, 3\)\] is needed"):
        mix(model, found, [torch.eye(3)])
    with pytest.raises(TypeError, match="find_mixings with mix"):
        rescale(model, found, found.sample())  # type: ignore[arg-type]
