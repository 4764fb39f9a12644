"""Sharpness along training: the numbers of the library, and a training that does not notice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin import ASAM
from flatmin.analysis import AlongTraining
from flatmin.ball import Ball
from flatmin.cli import main
from flatmin.objective import EmpiricalLoss
from flatmin.scale import Elementwise, Identity
from flatmin.sharpness import critical_sharpness, gradient_norm, hessian_trace
from flatmin.train import read_log


class Part(nn.Module):
    """Dropout draws random numbers; BatchNorm keeps statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def batch(count: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 2, generator=generator), torch.arange(count) % 3


def trained(steps: int, **options: Any) -> tuple[nn.Module, AlongTraining | None]:
    """Train a little; with options, also measure."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Part()
        optimizer = ASAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
        along = AlongTraining(model, F.cross_entropy, batch(), **options) if options else None
        x, y = batch(12)
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            with optimizer.perturbed():
                F.cross_entropy(model(x), y).backward()
            optimizer.step()
            if along is not None:
                along.step()
    return model, along


def test_the_training_is_the_same_to_the_bit() -> None:
    alone, _ = trained(6)
    measured, along = trained(6, every=2, measure="average", samples=2)
    assert along is not None and [row["step"] for row in along.history] == [2, 4, 6]
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, measured.state_dict()[name]), name
    assert measured.training


def test_the_numbers_are_those_of_the_library() -> None:
    model, along = trained(3, every=3)
    assert along is not None
    x, y = batch()
    twin = Part().double()
    twin.load_state_dict(model.state_dict())
    objective = EmpiricalLoss(twin.double().eval(), F.cross_entropy, [(x.double(), y)])
    w = objective.params
    (row,) = along.history
    assert row == {
        "step": 3,
        "critical": critical_sharpness(objective, w, scale=Elementwise()).value,
        "loss": objective.value(w).item(),
    }


def test_a_measure_of_ones_own_with_its_error() -> None:
    def curvature(objective: EmpiricalLoss, w: dict[str, Tensor]) -> Any:
        return hessian_trace(objective, w, scale=Identity(), samples=3)

    _, along = trained(2, every=1, measure=curvature)
    assert along is not None and set(along.history[0]) == {
        "step", "curvature", "curvature_error", "loss",
    }  # fmt: skip
    figure = along.plot()
    upper, lower = figure.axes
    assert upper.get_ylabel().startswith("curvature") and lower.get_xlabel() == "step"
    assert len(upper.collections) == 1  # the band


def test_a_ball_of_another_scale_counts() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3.0)
    along = AlongTraining(
        model, F.mse_loss, (torch.ones(1, 1), torch.zeros(1, 1)), every=1,
        measure="gradient-norm", ball=Ball(1.0),
    )  # fmt: skip
    along.step()
    assert along.history[0]["gradient-norm"] == 6.0  # 2 w; with T = |w| it would be 2 w²
    objective = EmpiricalLoss(model, F.mse_loss, [(torch.ones(1, 1), torch.zeros(1, 1))])
    assert gradient_norm(objective, objective.params, scale=Elementwise()).value == 18.0


def test_a_loss_that_is_not_finite_is_a_gap() -> None:
    model = nn.Linear(1, 1, bias=False)
    along = AlongTraining(model, F.mse_loss, (torch.ones(2, 1), torch.zeros(2, 1)), every=1)
    along.step()
    model.weight.data.fill_(torch.nan)
    along.step()
    assert along.history[1] == {"step": 2, "critical": None, "loss": None}
    along.plot()


def test_it_goes_on_where_it_was() -> None:
    _, along = trained(4, every=2)
    assert along is not None
    state = json.loads(json.dumps(along.state_dict()))
    other = AlongTraining(Part(), F.cross_entropy, batch(), every=2)
    other.load_state_dict(state)
    other.step()
    other.step()
    assert [row["step"] for row in other.history] == [2, 4, 6]
    assert other.history[:2] == along.history


def test_a_writer_is_told() -> None:
    told: list[tuple[str, float, int]] = []

    class Writer:
        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

    _, along = trained(2, every=2, writer=Writer())
    assert along is not None
    row = along.history[0]
    assert told == [("along/critical", row["critical"], 2), ("along/loss", row["loss"], 2)]


def test_wrapped_networks_are_seen_through() -> None:
    model = nn.Linear(2, 3)
    compiled: Any = torch.compile(model, backend="eager")
    along = AlongTraining(compiled, F.cross_entropy, batch(), every=1)
    along.step()
    assert along.history[0]["critical"] is not None


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "every": ({"every": 0}, ValueError, "every must be at least 1 step, got 0"),
    "measure": ({"measure": "flat"}, ValueError, "there is no measure 'flat'"),
    "batch": ({"batch": torch.ones(3)}, TypeError, "batch must be a pair"),
    "fit": ({"batch": (torch.ones(3, 5), torch.arange(3))}, ValueError, "does not take these"),
    "model": ({"model": F.relu}, TypeError, "must be a torch.nn.Module"),
    "parallel": ({"model": nn.DataParallel(Part())}, TypeError, "pass model.module"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_at_once(case: str) -> None:
    words, kind, sentence = BAD[case]
    given = {"model": Part(), "loss": None, "batch": batch()} | words
    with pytest.raises(kind, match=sentence):
        AlongTraining(**given)


def test_nothing_can_be_drawn_before_the_first_measuring() -> None:
    with pytest.raises(ValueError, match="nothing was measured yet"):
        AlongTraining(Part(), None, batch()).plot()


@pytest.mark.slow
def test_the_command_measures_along_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ["--set", "model=mlp-1-8", "epochs=1", "batch_size=128", "evaluate_train=100"]
    words = ["train", *sets, "minimizer=sam", "--out", str(tmp_path / "with")]
    assert main([*words, "--measure-every", "4", "--measure", "gradient-norm"]) == 0
    said = capsys.readouterr().out.partition(";")[0]
    assert main(["train", *sets, "minimizer=sam", "--out", str(tmp_path / "without")]) == 0
    assert capsys.readouterr().out.partition(";")[0] == said
    rows = [row for row in read_log(tmp_path / "with" / "log.jsonl") if row["event"] == "watch"]
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert all(row["gradient-norm"] > 0 and row["loss"] > 0 for row in rows)
    assert (tmp_path / "with" / "along.png").stat().st_size > 10_000
    assert not (tmp_path / "without" / "along.png").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--measure", "trace"], "--measure needs --measure-every"),
        (["--measure-every", "5"], "--measure-every needs --out"),
        (["--measure-every", "0", "--out", "x"], "--measure-every must be at least 1, got 0"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [str(tmp_path / word) if word == "x" else word for word in words]
    assert main(["train", *words]) == 2
    assert sentence in capsys.readouterr().err
