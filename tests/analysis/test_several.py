"""Networks side by side: the numbers of each alone, and only where they can be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flatmin.analysis import Look, look, side_by_side
from flatmin.ball import Ball
from flatmin.cli import main
from flatmin.data import load_digits
from flatmin.scale import Elementwise, Layerwise
from flatmin.train import TrainConfig, train
from slowly import slow_but

NETWORKS = """
import torch
from torch import nn


def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))


def wide():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10))


def large():
    return nn.Sequential(nn.AvgPool2d(4), small())
"""
SMALL = ["--examples", "16", "--steps", "2", "--samples", "2", "--scalings", "1", "--grid", "3"]
SMALL += ["--measure", "one-step", "average"]


def looked(seed: int = 0, **options: Any) -> Look:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
    x = torch.linspace(-1, 1, 24).reshape(12, 2)
    data = options.pop("data", (x, torch.arange(12) % 3))
    usual = {"measures": ["one-step", "average"], "samples": 2, "scalings": 1}
    return look(model, data, title=f"seed {seed}", **(usual | options))


def test_each_column_is_the_look_alone() -> None:
    looks = [looked(seed) for seed in (0, 1, 2)]
    found = side_by_side(*looks)
    for name in ("one-step", "average"):
        assert found.numbers[name] == tuple(one.numbers[name] for one in looks)
    assert found.errors["one-step"] == (None, None, None)
    assert found.errors["average"] == tuple(one.errors["average"] for one in looks)
    lines = repr(found).splitlines()
    assert lines[2:5] == ["A: seed 0", "B: seed 1", "C: seed 2"]
    row = next(line for line in lines if line.startswith("one-step"))
    assert row.split()[1:] == [f"{one.numbers['one-step']:.4g}" for one in looks]
    assert "rescaled copies of these networks differ by" in lines[-1]


@pytest.mark.slow
def test_the_landscapes_share_axes_and_colors(tmp_path: Path) -> None:
    found = side_by_side(looked(0), looked(1))
    figure = found.plot_landscapes(grid=5)
    planes = [ax for ax in figure.axes if ax.get_xlabel().startswith("steepest")]
    assert len(planes) == 2 and len({ax.get_xlim() for ax in planes}) == 1
    filled = [ax.collections[0].get_clim() for ax in planes]
    assert filled[0] == filled[1]
    found.save_html(tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text()
    assert page.count("data:image/png;base64,") == 2  # shown, and to be opened
    assert "A: seed 0" in page and "B: seed 1" in page


OTHERS: dict[str, dict[str, Any]] = {
    "in the same ball, got scale T = |w|, rho 0.5, p 2 and scale T = |w|, rho 0.4": {
        "ball": Ball(0.4, scale=Elementwise())
    },
    "in the same ball": {"ball": Ball(0.5, scale=Layerwise())},
    "on the same data, got 12 examples": {"data": (torch.ones(12, 2), torch.arange(12) % 3)},
    "with the same loss": {"loss": nn.MultiMarginLoss()},
    "by the same measures": {"measures": ["one-step"]},
    "with the same effort": {"samples": 3},
}


@pytest.mark.parametrize("sentence", slow_but(OTHERS, "with the same loss"))
def test_what_cannot_be_compared_is_refused(sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        side_by_side(looked(0), looked(1, **OTHERS[sentence]))
    assert f"networks are compared {sentence}" in str(refused.value)


def test_one_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="two looks to compare, got 1"):
        side_by_side(looked())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with networks and two files of weights."""
    (tmp_path / "side_networks.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *__import__("sys").path])
    monkeypatch.delitem(__import__("sys").modules, "side_networks", raising=False)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    import side_networks  # type: ignore[import-not-found]

    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(side_networks.small().state_dict(), f"{seed}.pt")
    return tmp_path


@pytest.mark.slow
def test_the_command_measures_several(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["side_networks:small", "--weights", "0.pt", "--weights", "1.pt"]
    assert main(["measure", *words, *SMALL]) == 0
    shown = capsys.readouterr().out
    record = json.loads((folder / "results" / "measure.json").read_text())
    assert [one["title"] for one in record["networks"]] == [
        "side_networks:small with 0.pt", "side_networks:small with 1.pt",
    ]  # fmt: skip
    values = [one["rows"][0]["value"] for one in record["networks"]]
    assert values[0] != values[1]
    row = [line for line in shown.splitlines() if line.startswith("one-step")][-1]
    assert row.split()[1:] == [f"{value:.4g}" for value in values]
    alone = ["side_networks:small", "--weights", "1.pt", *SMALL, "--out", "alone"]
    alone += ["--scalings", "0"]
    assert main(["measure", *alone]) == 0
    again = json.loads((folder / "alone" / "measure.json").read_text())
    assert again["rows"][0]["value"] == values[1]
    both = ["side_networks:small", "side_networks:wide", *SMALL, "--scalings", "0"]
    assert main(["measure", *both]) == 0
    shown = capsys.readouterr().out
    assert "A: side_networks:small\nB: side_networks:wide\n" in shown


@pytest.mark.slow
def test_checkpoints_of_the_same_name_are_told_apart(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [part.subset(torch.arange(32)) for part in load_digits()]
    for name in ("one", "two"):
        chosen = TrainConfig(model="mlp-1-8", epochs=1, batch_size=16, seed=len(name))
        train(chosen, (small[0], small[1]), out=folder / name)
    assert main(["measure", "one", "two", *SMALL, "--scalings", "0"]) == 0
    shown = capsys.readouterr().out
    assert "A: mlp-1-8, sgd, step 2 (one)\nB: mlp-1-8, sgd, step 2 (two)\n" in shown


def test_networks_on_other_data_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["side_networks:small", "side_networks:wide", "--weights", "0.pt", *SMALL]
    assert main(["measure", *words]) == 2
    assert "got 1 for 2 networks" in capsys.readouterr().err


@pytest.mark.slow
def test_results_of_another_network_are_set_aside(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "--scalings", "0"]
    small, wide = ["side_networks:small", *words], ["side_networks:wide", *words]
    assert main(["measure", *small]) == 0
    first = (folder / "results" / "measure.json").read_bytes()
    assert main(["measure", *small, "--grid", "0"]) == 0  # of the same network: replaced
    capsys.readouterr()
    assert sorted(path.name for path in (folder / "results").iterdir()) == ["measure.json"]
    assert main(["measure", *small]) == 0
    assert main(["measure", *wide]) == 0
    said = capsys.readouterr().err
    assert "measure.json held side_networks:small and is now results/measure-1.json" in said
    kept = json.loads((folder / "results" / "measure-1.json").read_text())
    assert kept["rows"][0]["value"] == json.loads(first)["rows"][0]["value"]
    assert (folder / "results" / "measure-1.png").exists()
    (folder / "results" / "measure.json").write_text("no JSON")
    assert main(["measure", *wide]) == 0
    assert "held something else and is now results/measure-2.json" in capsys.readouterr().err
