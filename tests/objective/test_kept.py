"""What a model keeps from an earlier call must not stand still while its parameters move."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin import Ball, EmpiricalLoss
from flatmin.analysis import look, subject
from flatmin.compare.flatness import flatness
from flatmin.data import TensorSet
from flatmin.objective import empirical
from flatmin.sharpness import average_sharpness


class Biased(nn.Module):
    """A layer with a factor made of a parameter: each time, or once in eval mode."""

    def __init__(self, keep: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.raw = nn.Parameter(torch.zeros(4))
        self.made: dict[str, Tensor] = {}
        self.only: Tensor | None = None
        self.keep = keep
        self.double()

    def train(self, mode: bool = True) -> Biased:
        self.made, self.only = {}, None
        return super().train(mode)

    def factor(self) -> Tensor:
        if self.training or self.keep == "nothing":
            return self.raw.exp()
        if self.keep == "an attribute":
            if self.only is None:
                self.only = self.raw.exp()
            return self.only
        return self.made.setdefault("cpu", self.raw.exp())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.tanh(self.first(x) * self.factor()))
        return out


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (12,), generator=generator)


def rise(model: nn.Module) -> float:
    objective = EmpiricalLoss(model, nn.functional.cross_entropy, [data()])
    return average_sharpness(objective, objective.params, Ball(rho=0.5)).value


KEEPS = ["a dictionary", "an attribute"]


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("graph", [False, True])
def test_a_table_that_was_made_before_is_refused(keep: str, graph: bool) -> None:
    """Accuracy is looked at before sharpness is, so eval mode has kept it by then."""
    model = Biased(keep).eval()
    with torch.set_grad_enabled(graph):
        model(data()[0])
    before = dict(vars(model)), dict(model.made)
    name = "made['cpu']" if keep == "a dictionary" else "only"
    with pytest.raises(ValueError, match="must follow the parameters") as refusal:
        rise(model)
    assert name in str(refusal.value)
    assert list(vars(model)) == list(before[0])
    assert all(vars(model)[key] is value for key, value in before[0].items())
    assert list(model.made) == list(before[1])
    model.train()
    model.eval()
    assert rise(model) == rise(Biased("nothing").eval())


@pytest.mark.parametrize("keep", KEEPS)
def test_not_to_ask_is_a_wrong_number_without_a_word(
    keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(empirical, "kept_fault", lambda *_: None)
    model = Biased(keep).eval()
    with torch.no_grad():
        model(data()[0])
    assert rise(model) != pytest.approx(rise(Biased("nothing").eval()), rel=1e-3)


class Positions(nn.Module):
    """Kept tensors that no parameter is in, or that a model cannot do without."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(4, 3)
        self.made: dict[int, Tensor] = {}
        self.needed = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
        self.mean: Any = None
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) not in self.made:
            self.made[len(x)] = torch.linspace(0, 1, len(x), dtype=x.dtype)[:, None]
        self.mean = x.mean() if self.mean is None else 0.9 * self.mean + 0.1 * x.mean()
        out: Tensor = self.last(x * self.needed + self.made[len(x)]) + 0.1 * self.mean
        return out


def test_what_does_not_depend_on_parameters_may_be_kept() -> None:
    model = Positions().eval()
    with torch.no_grad():
        model(data()[0])
    assert rise(model) > 0


@pytest.mark.parametrize("keep", KEEPS)
def test_a_look_keeps_nothing_itself(keep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries the network on the data, in eval mode, before it measures."""
    found = [
        look(Biased(how).eval(), data(), measures="one-step").numbers["one-step"]
        for how in (keep, "nothing")
    ]
    assert found[0] == found[1]
    monkeypatch.setattr(subject, "forgetting", lambda _: nullcontext())
    with pytest.raises(ValueError, match="must follow the parameters"):
        look(Biased(keep).eval(), data(), measures="one-step")


def test_a_comparison_measures_a_network_that_it_has_evaluated() -> None:
    found = []
    for how in (*KEEPS, "nothing"):
        model = Biased(how).eval()
        with torch.no_grad():
            model(data()[0])
        found.append(flatness(model, TensorSet(*data()), None, "cpu"))
    assert found[0] == found[1] == found[2]
    assert "worst" in found[0]
