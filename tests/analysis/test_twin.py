"""A copy is measured: of whatever is trained, and a loss that does not see it is refused."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from flatmin.analysis import AlongTraining, Look, look
from flatmin.analysis.twin import twin_of

QUICK: dict[str, Any] = {"measures": ["one-step"], "scalings": 0, "control": None}


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(12, 4, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3


def plain() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


class Features(nn.Module):
    """Keeps what it has computed, with its graph, and passes on a list of it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain()
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.net[:2](x)
        self.kept = [self.features.flatten(1)]
        out: Tensor = self.net[2](self.features)
        return out


def pruned() -> nn.Module:
    model = plain()
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def normed() -> nn.Module:
    model = plain()
    with warnings.catch_warnings(action="ignore"):  # it is deprecated, and in use
        model[0] = nn.utils.weight_norm(model[0])
    return model


@pytest.mark.parametrize("made", [Features, pruned, normed])
def test_a_network_in_the_middle_of_a_step_is_measured(made: Callable[[], nn.Module]) -> None:
    model, (x, y) = made(), data()
    fresh = copy.deepcopy(model.state_dict())
    F.cross_entropy(model(x), y).backward()
    along = AlongTraining(model, F.cross_entropy, (x, y), every=1, measure="one-step")
    along.step()
    found = look(model, (x, y), loss=F.cross_entropy, **QUICK)
    (row,) = along.history
    assert (row["one-step"], row["loss"]) == (found.numbers["one-step"], found.loss)
    other = made()
    other.load_state_dict(fresh)
    assert found.numbers == look(other, (x, y), loss=F.cross_entropy, **QUICK).numbers
    assert found.loss == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-6)


def test_what_it_has_kept_stays_with_its_graph() -> None:
    model, (x, y) = Features(), data()
    model(x)
    kept = model.features
    look(model, (x, y), **QUICK)
    assert model.features is kept and kept.requires_grad
    assert twin_of(model).features.requires_grad is False


def squares(model: nn.Module) -> Tensor:
    return torch.stack([p.square().sum() for p in model.parameters()]).sum()


class Penalized(nn.Module):
    """A loss that holds the network."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets) + 0.1 * squares(self.model)


def penalized(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda outputs, targets: F.cross_entropy(outputs, targets) + 0.1 * squares(model)


REACHED = r"it reaches '0\.weight' of the network itself.*EmpiricalLoss\(model, loss, batches\)"


@pytest.mark.parametrize("loss", [penalized, Penalized])
def test_a_penalty_on_the_network_itself_is_refused(loss: Callable[[nn.Module], Any]) -> None:
    model = plain()
    with pytest.raises(ValueError, match=REACHED):
        look(model, data(), loss=loss(model), **QUICK)
    with pytest.raises(ValueError, match=REACHED):
        AlongTraining(model, loss(model), data())


@pytest.mark.parametrize("loss", [penalized, Penalized])
def test_a_penalty_on_another_network_is_none_of_ours(loss: Callable[[nn.Module], Any]) -> None:
    model, other = plain(), plain().requires_grad_(False)
    found: Look = look(model, data(), loss=loss(other), **QUICK)
    without = look(model, data(), loss=F.cross_entropy, **QUICK)
    assert found.loss == pytest.approx(without.loss + 0.1 * squares(other).item(), rel=1e-6)


def test_a_frozen_part_may_be_reached() -> None:
    model = plain()
    model[0].requires_grad_(False)
    found = look(model, data(), loss=penalized(model[0]), **QUICK)
    assert found.numbers["one-step"] == pytest.approx(
        look(model, data(), loss=F.cross_entropy, **QUICK).numbers["one-step"]
    )


def test_a_network_whose_function_is_that_of_the_original_is_refused() -> None:
    """A function is copied as itself, with all that it has closed over."""
    model: Any = plain()
    inner = model.forward
    model.forward = lambda x: 2 * inner(x)
    with pytest.raises(ValueError, match=REACHED):
        look(model, data(), dtype=torch.float32, **QUICK)


class Tied(nn.Module):
    """A decoder that is the encoder turned over, by its memory alone."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 3), nn.Linear(3, 4, bias=False)
        if by == "a parameter":
            self.decoder.weight.data = self.encoder.weight.data.t()
        else:
            self.view = self.encoder.weight.detach().t()

    def forward(self, x: Tensor) -> Tensor:
        weight = getattr(self, "view", self.decoder.weight)
        return F.linear(self.encoder(x).tanh(), weight)


@pytest.mark.parametrize("by", ["a parameter", "a view"])
def test_a_tie_that_a_copy_would_cut_is_refused(by: str) -> None:
    model, x = Tied(by), torch.randn(8, 4)
    with pytest.raises(
        ValueError, match=r"shares memory with 'encoder\.weight'|'encoder\.weight' sh"
    ):
        look(model, (x, x), measures=["one-step"], scalings=0, control=None)
    with pytest.raises(ValueError, match="shares memory"):
        AlongTraining(model, F.mse_loss, (x, x), every=1)
