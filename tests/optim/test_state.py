"""Whatever state a forward reads and writes: with rho = 0 it is the base's, bit for bit.

And with a perturbation nothing absorbs the perturbed weights.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cases import OTHERS_SLOWLY, VARIANTS, Careless, build, same

SOURCE = torch.Generator().manual_seed(1)
DATA = [
    (torch.randn(8, 4, generator=SOURCE), torch.randint(3, (8,), generator=SOURCE))
    for _ in range(4)
]


class MomentumEncoder(nn.Module):
    """Frozen parameters that follow the others at each forward."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.query, self.how = nn.Linear(4, 3), how
        self.key = copy.deepcopy(self.query).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for q, k in zip(self.query.parameters(), self.key.parameters(), strict=True):
            if self.how == "in place":
                with torch.no_grad():
                    k.mul_(0.9).add_(q, alpha=0.1)
            elif self.how == "by data":
                k.data.mul_(0.9).add_(q.data, alpha=0.1)
            else:
                k.data = 0.9 * k.data + 0.1 * q.data
        return self.query(x) + self.key(x)


class Codebook(nn.Module):
    """Vectors that move towards what is assigned to them, and count it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.vectors: Tensor
        self.register_buffer("vectors", torch.randn(5, 3))
        self.register_buffer("counts", torch.ones(5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        nearest = torch.cdist(h, self.vectors).argmin(1)
        with torch.no_grad():
            self.counts.index_add_(0, nearest, torch.ones(len(x)))
            self.vectors[nearest] += 0.1 * (h - self.vectors[nearest])
        return h + (self.vectors[nearest] - h).detach() * h.tanh()


class BatchRenorm(nn.Module):
    """Normalizes by the batch, corrected towards running statistics, more so with time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.steps = nn.Linear(4, 3), 0
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        self.steps += 1
        mean, std = h.mean(0), h.std(0) + 1e-3
        limit = 1 + self.steps / 2
        r = (std.detach() / self.std).clamp(1 / limit, limit)
        d = ((mean.detach() - self.mean) / self.std).clamp(-limit, limit)
        self.mean += 0.1 * (mean.detach() - self.mean)
        self.std = self.std + 0.1 * (std.detach() - self.std)  # replaced rather than changed
        return (h - mean) / std * r + d


class PlainAttributes(nn.Module):
    """State that torch knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.average, self.steps, self.last = torch.zeros(3), 0, None
        self.queue: deque[Tensor] = deque(maxlen=3)
        self.seen: dict[str, float] = {}
        self.norms: list[float] = []
        self.array = np.zeros(3)
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x) * torch.rand(3, generator=self.generator)
        self.steps += 1
        self.average.mul_(0.5).add_(h.detach().mean(0))
        self.array += h.detach().mean(0).numpy()
        self.queue.append(h.detach())
        self.norms.append(h.norm().item())
        self.seen["sum"] = self.seen.get("sum", 0.0) + h.sum().item()
        self.last = self.last if self.steps % 2 else h.detach()
        extra = sum(q.mean(0) for q in self.queue) + self.seen["sum"] / 10 + self.norms[-1]
        return h * (1 + self.steps + extra) + self.average + torch.from_numpy(self.array).float()


class OtherStreams(nn.Module):
    """Layers dropped by Python's numbers, scaled by NumPy's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x) * float(np.random.rand())  # noqa: NPY002
        return h + self.second(x) if random.random() < 0.5 else h


class MadeLate(nn.Module):
    """A table that the first forward makes, and one that shares its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("table", None)
        self.register_buffer("same", torch.zeros(1, 3).expand(8, 3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = self.layer.weight.detach().sum(1)
            self.cache = self.table * 2
        return self.layer(x) + self.table + self.cache + self.same


class InBackward(nn.Module):
    """Two forwards of one module before the backward, as siamese networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + self.one(x.flip(0)).tanh()


class EvalBackbone(nn.Module):
    """Trained in evaluation mode, but for its head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def train(self, mode: bool = True) -> EvalBackbone:
        super().train(mode)
        self.training = False
        return self


def head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def spectral() -> nn.Module:
    return nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))


def old_spectral() -> nn.Module:
    return nn.utils.spectral_norm(nn.Linear(4, 3))


def old_weight_norm() -> nn.Module:
    return nn.utils.weight_norm(nn.Linear(4, 3))


STATES: dict[str, Any] = {
    "spectral norm": spectral,
    "old spectral norm": old_spectral,
    "old weight norm": old_weight_norm,
    "momentum encoder": lambda: MomentumEncoder("in place"),
    "momentum encoder by data": lambda: MomentumEncoder("by data"),
    "momentum encoder replaced": lambda: MomentumEncoder("replaced"),
    "codebook": Codebook,
    "batch renorm": BatchRenorm,
    "plain attributes": PlainAttributes,
    "other streams": OtherStreams,
    "made late": MadeLate,
    "two forwards": InBackward,
    "evaluation mode": EvalBackbone,
    "inside others": lambda: nn.Sequential(nn.Linear(4, 4), nn.Sequential(Codebook())),
}

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")


def run(make: Any, optimizer_of: Any, sharp: bool, steps: int = 4) -> dict[str, Any]:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    model = make().train()
    optimizer = optimizer_of(model)
    for x, y in DATA[:steps]:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        if sharp:
            with optimizer.perturbed():
                nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return {
        "model": model.state_dict(),
        "own": {
            f"{name}.{key}": value.tolist() if isinstance(value, np.ndarray) else value
            for name, module in model.named_modules()
            for key, value in {**vars(module), **module._buffers}.items()
            if isinstance(value, Tensor | int | float | deque | list | dict | np.ndarray)
            and not (key.startswith("_") or (isinstance(value, Tensor) and value.requires_grad))
        },
        "random": (torch.get_rng_state(), random.random(), float(np.random.rand())),  # noqa: NPY002
    }


def bare(model: nn.Module) -> Any:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("variant", OTHERS_SLOWLY)
def test_with_rho_zero_any_state_is_the_bases(variant: str, state: str) -> None:
    def sharp(model: nn.Module) -> Any:
        return VARIANTS[variant](bare(model), rho=0.0, model=model)

    assert equal(run(STATES[state], bare, False), run(STATES[state], sharp, True))


@pytest.mark.parametrize(
    "state", sorted(STATES.keys() - {"old weight norm", "made late", "two forwards"})
)
def test_without_the_model_it_is_not(state: str) -> None:
    """Otherwise the states here would not need it; three show only at a perturbed point."""

    def sharp(model: nn.Module) -> Any:
        return VARIANTS["SAM"](bare(model), rho=0.0)

    assert not equal(run(STATES[state], bare, False), run(STATES[state], sharp, True))


@pytest.mark.parametrize("state", STATES)
def test_nothing_absorbs_perturbed_weights(state: str) -> None:
    """With lr = 0 the second pass is the only thing that could leave another trace."""

    def still(model: nn.Module) -> Any:
        return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)

    def sharp(model: nn.Module) -> Any:
        return VARIANTS["SAM"](still(model), rho=0.5, model=model)

    assert equal(run(STATES[state], still, False), run(STATES[state], sharp, True))


def test_a_careless_wrapper_is_noticed() -> None:
    def careless(model: nn.Module) -> Any:
        return Careless(bare(model), rho=0.0)

    assert not equal(run(spectral, bare, False), run(spectral, careless, True))


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        return [plain(part) for part in value] if isinstance(value, list | deque) else value

    return same(plain(one), plain(other))


def test_a_table_made_in_a_validation_pass() -> None:
    """In inference mode: nothing may write it, and nothing has to."""
    model = MadeLate()
    with torch.inference_mode():
        model(DATA[0][0])
    assert model.table.is_inference()
    run(lambda: model, lambda m: build("SAM", "SGD", m, model=m), True)


def test_a_frozen_backbone_is_not_copied_and_its_changes_are_refused() -> None:
    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Linear(4, 100), nn.Linear(100, 100))
            self.backbone.requires_grad_(False)
            self.head, self.writes = nn.Linear(100, 3), False

        def forward(self, x: Tensor) -> Tensor:
            if self.writes:
                self.backbone[1].bias.data.add_(1.0)
            return self.head(self.backbone(x))

    model = Adapter()
    optimizer = build("SAM", "SGD", model.head, model=model)
    x, y = DATA[0]
    for writes in (False, True):
        model.writes = writes
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        if writes:
            refused = pytest.raises(
                RuntimeError, match=r"frozen parameter 'backbone.1.bias'.*buffer"
            )
            with refused, optimizer.perturbed():
                pass
        else:
            with optimizer.perturbed():
                nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()


def test_a_call_that_no_backward_can_reach_is_forgotten() -> None:
    """A validation without ``no_grad`` must not pile up states."""
    model = Codebook()
    optimizer = build("SAM", "SGD", model, model=model)
    for x, _ in DATA:
        model(x)
    assert not optimizer._replay._used
    model(DATA[0][0]).sum().backward()
    assert len(optimizer._replay._used) == 1


def test_a_model_that_the_loop_does_not_call_is_told_of() -> None:
    """A Lightning module, say, whose ``training_step`` calls the network inside it."""
    outer = nn.Sequential(nn.Linear(4, 3))
    optimizer = build("SAM", "SGD", outer, model=outer)
    x, y = DATA[0]
    with pytest.warns(RuntimeWarning, match="no gradient of the first pass came through") as caught:
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(outer[0](x), y).backward()
            with optimizer.perturbed():
                nn.functional.cross_entropy(outer[0](x), y).backward()
            optimizer.step()
    assert len(caught) == 1
