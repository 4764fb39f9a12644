"""``flatmin measure``: what it prints, writes and refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flatmin._streams import stream
from flatmin.analysis.measuring import MEASURES, Effort, inscribed_box, measure
from flatmin.ball import Ball
from flatmin.cli import main
from flatmin.data import load_digits
from flatmin.objective import EmpiricalLoss
from flatmin.scale import Elementwise
from flatmin.sharpness import one_step_sharpness, worst_case_sharpness
from flatmin.train import TrainConfig, train
from slowly import slow_but

NETWORKS = """
import warnings

import torch
from torch import nn


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))


def gelu():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 10))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(x.flatten(1)) if x.sum() > 1e9 else self.layer(2 * x.flatten(1))


def diverged():
    model = mlp()
    model[1].weight.data.fill_(float("nan"))
    return model


def frozen():
    return mlp().requires_grad_(False)


def parallel():
    return nn.DataParallel(mlp())


def scripted():
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.script(mlp())


def traced():
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.trace(mlp(), torch.zeros(2, 1, 8, 8))


def empty():
    with torch.device("meta"):
        return mlp()


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


def complex_numbers():
    model = mlp()
    model[1].register_parameter("turn", nn.Parameter(torch.tensor(1j)))
    return model


def compiled():
    return torch.compile(mlp(), backend="eager")


def seven():
    return 7


def broken():
    raise KeyError("lost")


def line():
    return nn.Linear(3, 1)


def pairs():
    x = torch.arange(18.0).reshape(6, 3) / 18
    return [(x[:4], x[:4, :1]), (x[4:], x[4:, :1])]


def few():
    return [(torch.zeros(2, 1, 8, 8), torch.tensor([3, 11]))]


def two():
    return nn.Bilinear(3, 3, 1)


def twice():
    return [((x, x), y) for x, y in pairs()]


def nothing():
    return []


MADE = torch.nn.Linear(64, 10)
"""
SMALL = ["--examples", "16", "--steps", "2", "--samples", "2", "--scalings", "2", "--grid", "3"]


@pytest.fixture(autouse=True)
def _in_a_folder_with_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *__import__("sys").path])
    monkeypatch.delitem(__import__("sys").modules, "own_networks", raising=False)
    monkeypatch.setattr("sys.dont_write_bytecode", True)


def run(*words: str) -> int:
    try:
        return main(["measure", *words])
    except SystemExit as stop:  # argparse ends this way
        return int(stop.code or 0)


def record(folder: str = "results") -> Any:
    return json.loads(Path(folder, "measure.json").read_text())


@pytest.mark.slow
def test_a_network_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("own_networks:mlp", *SMALL) == 0
    shown = capsys.readouterr().out
    found = record()
    assert [row["measure"] for row in found["rows"][::2]] == list(MEASURES)
    for row in found["rows"]:
        assert row["measure"] in shown
        assert row["outputs_moved"] < 1e-12
        if row["measure"].startswith("rounding"):
            assert row["spread"] > 0.1  # its steps do not follow what reads a unit
        elif row["scale"] == "T = |w|":
            assert row["spread"] <= 1e-9
        else:
            assert row["spread"] > 1e-2
    errors = {row["measure"]: row["standard_error"] for row in found["rows"]}
    assert [name for name, error in errors.items() if error is not None] == ["average", "trace"]
    assert found["rows"][0]["gradients"] == found["rows"][0]["forwards"] == 1
    assert (found["data"]["source"], found["data"]["examples"]) == ("digits (scikit-learn)", 16)
    assert found["certificate"] == {"copies": 2, "units": 8, "reason": None, "mixings": ""}
    assert set(found["provenance"]) >= {"commit", "torch", "flatmin", "command", "seeds"}
    assert len(found["landscape"]["plane"]) == 3
    assert sorted(path.name for path in Path("results").iterdir()) == [
        "measure.json", "measure.png",
    ]  # fmt: skip


def test_the_numbers_are_those_of_the_library() -> None:
    words = ["--measure", "one-step", "worst-case-box", "--rho", "0.3", "--grid", "0"]
    assert run("own_networks:mlp", *words, *SMALL[:-2]) == 0
    import own_networks  # type: ignore[import-not-found]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = own_networks.mlp().double()
    images, _ = load_digits()
    chosen = images.subset(torch.randperm(len(images), generator=stream("examples", 0)))
    pixels = chosen.images[:16].double() / 255
    batch = ((pixels - images.mean[0]) / images.std[0]).float().double(), chosen.labels[:16]
    objective = EmpiricalLoss(model, nn.functional.cross_entropy, [batch])
    w, ball = objective.params, Ball(0.3, scale=Elementwise())
    box = Ball(0.3 / math.sqrt(610), math.inf, Elementwise())
    rows = record()["rows"]
    assert rows[0]["value"] == pytest.approx(one_step_sharpness(objective, w, ball).value, rel=1e-4)
    by_library = worst_case_sharpness(objective, w, box, steps=2).value
    assert rows[2]["value"] == pytest.approx(by_library, rel=1e-4)
    assert record()["landscape"] is None
    assert not Path("results", "measure.png").exists()


def test_the_box_has_its_corners_on_the_edge() -> None:
    w = {"a": torch.ones(3, 3), "b": torch.ones(7)}
    for p in (1.0, 2.0, 3.0, math.inf):
        box = inscribed_box(Ball(0.7, p), w)
        corner = torch.full((16,), float(box.rho))
        assert torch.linalg.vector_norm(corner, p).item() == pytest.approx(0.7)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    train_set, test_set = load_digits()
    small = train_set.subset(torch.arange(64)), test_set.subset(torch.arange(16))
    config = TrainConfig(model="wrn-10-1", epochs=1, batch_size=32)
    run = train(config, small, out=tmp_path_factory.mktemp("run"))
    assert run.checkpoint is not None
    return run.checkpoint


@pytest.mark.slow
def test_a_checkpoint(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--measure", "one-step", "gradient-norm", "--part", "test", "--grid", "0"]
    assert run(str(checkpoint), *SMALL[:-2], *words) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("wrn-10-1, sgd, step 2: 77,562 parameters\n")
    assert "was not trained on these images" in shown.err  # on a part of them only
    found = record()
    assert found["network"]["step"] == 2
    assert found["data"]["seen_in_training"] is False
    assert found["rows"][0]["spread"] <= 1e-9  # running statistics are rescaled too
    first = found["rows"][0]["value"]
    assert (
        run(str(checkpoint.parent), *SMALL[:-2], *words, "--scalings", "0", "--out", "again") == 0
    )
    assert record("again")["rows"][0]["value"] == first
    assert run("own_networks:mlp", "--weights", str(checkpoint), *SMALL, "--out", "no") == 2
    assert "does not fit own_networks:mlp" in capsys.readouterr().err


def test_a_checkpoint_of_a_perceptron(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [part.subset(torch.arange(32)) for part in load_digits()]
    chosen = TrainConfig(model="mlp-1-8", epochs=1, batch_size=16)
    train(chosen, (small[0], small[1]), out=tmp_path / "run")
    words = ["--measure", "gradient-norm", "--grid", "0"]
    assert run(str(tmp_path / "run"), *SMALL[:-2], *words) == 0
    # 64 · 8 + 2 · 8 + 8 · 10 + 10
    assert capsys.readouterr().out.startswith("mlp-1-8, sgd, step 2: 618 parameters\n")


@pytest.mark.slow
def test_weights_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    import own_networks

    torch.save(own_networks.mlp().state_dict(), "weights.pt")
    words = [*SMALL[:-2], "--grid", "0", "--measure", "one-step"]
    values = []
    for seed in ("0", "1"):
        assert run("own_networks:mlp", "--weights", "weights.pt", "--seed", seed, *words) == 0
        values.append(record()["loss"])
    assert values[0] != values[1]  # other examples
    assert "with weights.pt" in capsys.readouterr().out
    torch.save(nn.Linear(1, 1), "whole.pt")  # a whole module may run code
    assert run("own_networks:mlp", "--weights", "whole.pt", *words) == 2
    assert "more than tensors" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "reason"),
    [("Branching", "torch.export cannot trace"), ("gelu", "GELU does not commute")],
)
def test_what_cannot_be_rescaled_is_measured_all_the_same(
    network: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"own_networks:{network}", *SMALL) == 0
    found = record()
    assert reason in found["certificate"]["reason"]
    assert reason in capsys.readouterr().out
    assert all(row["spread"] is None and row["value"] is not None for row in found["rows"])


@pytest.mark.slow
def test_batches_of_ones_own_with_squared_errors() -> None:
    assert run("own_networks:line", "--data", "own_networks:pairs", *SMALL, "--p", "inf") == 0
    found = record()
    assert (found["data"]["examples"], found["balls"][0]["p"]) == (6, "inf")
    import own_networks

    x = torch.cat([inputs for inputs, _ in own_networks.pairs()]).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = own_networks.line().double()
    assert found["loss"] == pytest.approx((model(x) - x[:, :1]).square().mean().item())
    assert run("own_networks:two", "--data", "own_networks:twice", *SMALL) == 0


def test_a_network_may_wait_for_the_data() -> None:
    assert run("own_networks:lazy", "--measure", "one-step", *SMALL[:-2], "--grid", "0") == 0
    assert record()["network"]["parameters"] == 650


def test_of_a_compiled_network_the_one_that_was_compiled_is_measured() -> None:
    import own_networks

    torch.save(own_networks.mlp().state_dict(), "weights.pt")
    words = ["--weights", "weights.pt", "--measure", "one-step", *SMALL[:-2], "--grid", "0"]
    found = []
    for network in ("mlp", "compiled"):
        assert run(f"own_networks:{network}", *words) == 0
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in record()["rows"]]
        found.append((record()["certificate"], rows))
    assert found[0] == found[1]
    assert found[1][0] == {"copies": 2, "units": 8, "reason": None, "mixings": ""}


@pytest.mark.parametrize(
    "words", slow_but([["--scale", "identity"], ["--scale", "layerwise"]], ["--scale", "identity"])
)
def test_other_scales(words: list[str]) -> None:
    measures = ["--measure", "average", "one-step"]
    assert run("own_networks:mlp", *words, *measures, *SMALL, "--scalings", "0") == 0
    scales = {row["scale"] for row in record()["rows"]}
    assert scales == ({"T = 1"} if words[1] == "identity" else {"T = |layer|", "T = 1"})
    assert record()["certificate"]["reason"] == "not asked for"


BAD = {
    "nothing.pt": "there is no checkpoint nothing.pt",
    "own_networks.py": "is not named as a checkpoint",
    ".": "there is no checkpoint in .",
    "own_networks:missing": "cannot be imported",
    "no_such_module:f": "cannot be imported",
    "own_networks.py:mlp": "names a file; name its module, as in own_networks:mlp",
    "own_networks:MADE": "is a network; name a function that makes it",
    "own_networks:broken": "KeyError: 'lost'",
    "own_networks:seven": "must return a torch.nn.Module, got int",
    "own_networks:parallel": "own_networks:parallel returns what cannot be measured: model must be "
    "the plain network, got DataParallel; pass model.module.",
    "own_networks:scripted": "got a scripted RecursiveScriptModule, whose parameters cannot be",
    "own_networks:traced": "got a scripted TopLevelTracedModule, whose parameters cannot be",
    "own_networks:empty": "'1.weight' is on the meta device; load the weights first",
    "own_networks:complex_numbers": "must be real, but '1.turn' is torch.complex64",
    "own_networks:diverged": "the loss must be finite, got nan",
    "own_networks:frozen": "no parameter with requires_grad",
    "own_networks:line": "does not take these data, inputs of shape [16, 1, 8, 8]",
    "own_networks:mlp --data nowhere": "nowhere does not exist",
    "own_networks:mlp --data own_networks:seven": "must return batches",
    "own_networks:mlp --data own_networks:nothing": "gave no examples",
    "own_networks:mlp --data own_networks:few": "a class 11",
    "own_networks:mlp --data own_networks:pairs": "does not take these data",
    "own_networks:mlp --weights missing.pt": "cannot be read as a state dict",
    "own_networks.py --weights missing.pt": "--weights goes with module:callable",
    "own_networks:mlp --measure flatness": "invalid choice: 'flatness'",
    "own_networks:mlp --rho 0": "rho must be above 0",
    "own_networks:mlp --p 0.5": "p must be in [1, inf]",
    "own_networks:mlp --eta -1": "eta must be finite and at least 0",
    "own_networks:mlp --scale identity --eta 1": "go with elementwise",
    "own_networks:mlp --device toaster": "device must be one this machine has",
    "own_networks:mlp --samples 1": "samples must be at least 2",
    "own_networks:mlp --grid 1": "grid must be at least 2",
    "own_networks:mlp --examples 0": "must be at least 1, got 0",
    "own_networks:mlp --scalings -1": "must be at least 0, got -1",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_sentence(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SMALL, *words.split()) == 2
    error = capsys.readouterr().err
    assert BAD[words] in error
    assert error.startswith("flatmin") and error.count("\n") == 1
    assert not list(Path.cwd().glob("results/*"))


def test_a_measure_that_does_not_exist() -> None:
    model = nn.Linear(1, 1)
    objective = EmpiricalLoss(model, nn.functional.mse_loss, [(torch.ones(1, 1),) * 2])
    with pytest.raises(ValueError, match="there is no measure 'flatness'"):
        measure("flatness", objective, Ball(0.1), Effort())
