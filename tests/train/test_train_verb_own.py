"""``flatmin train`` with data, network, loss and metric of one's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_runs import KINDS, same_weights, table_network

from flatmin.cli import main
from flatmin.train import TrainConfig, newest_checkpoint, read_log, train

MODULE = """
    from small_runs import KINDS, table_network
    import torch
    from flatmin.data import TensorSet

    def data():
        return KINDS["numbers"].data

    def network():
        return table_network(10, 1)

    def table():
        return KINDS["table"].data

    def classifier():
        return table_network(30, 2)

    def missing():  # every example that is tested on
        train, test = table()
        return train, TensorSet(test.inputs * float("nan"), test.targets)

    def nothing():
        return None

    def failing():
        raise RuntimeError("no such table")

    def error(outputs, targets):
        return (outputs - targets).abs().mean()
"""
SET = ["--set", "epochs=2", "batch_size=20", "lr=0.05", "minimizer=asam"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    lines = [line.removeprefix("    ") for line in MODULE.splitlines()]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("mine", None)


def test_numbers_with_a_loss_and_a_metric(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--data", "mine:data", "--network", "mine:network", *SET, "--out", "run"]
    words += ["--loss", "torch.nn.functional:mse_loss", "--metric", "mine:error"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.startswith("epoch 2: metric training 0.")
    begin = next(read_log("run/log.jsonl"))
    assert (begin["loss"], begin["metric"]) == ("torch.nn.functional.mse_loss", "mine.error")
    assert begin["data"] == ["load_diabetes"] * 2
    assert main([*words, "--resume"]) == 0
    assert capsys.readouterr().out == said

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = table_network(10, 1)
    config = TrainConfig(model="own", epochs=2, batch_size=20, lr=0.05, minimizer="asam")
    run = train(config, KINDS["numbers"].data, model=network, loss=F.mse_loss, metric=F.l1_loss)
    found = newest_checkpoint(Path("run"))
    assert found is not None
    network.load_state_dict(found[1]["network"])
    assert same_weights(run.model, network)
    assert run.history[-1].test_metric == found[1]["history"][-1]["test_metric"]


def test_classes_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "mine:table", "--network", "mine:classifier", *SET]) == 0
    assert "epoch 2: accuracy training" in capsys.readouterr().out


def test_missing_values_are_told_and_no_class(capsys: pytest.CaptureFixture[str]) -> None:
    """Of NaN alone the first was the highest, and all that is of class 0 was right."""
    assert main(["train", "--data", "mine:missing", "--network", "mine:classifier", *SET]) == 0
    said = capsys.readouterr()
    assert "test 0.00%" in said.out
    assert said.err.count("the test loss is nan: some examples there have no finite output") == 1


def test_digits_with_crops_and_a_network_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Flatten(), "
        "torch.nn.Linear(64, 10))\n"
    )
    words = ["train", "--network", "mine:net", "--out", "run", *SET, "crop_padding=1"]
    assert main(words) == 0
    begin = next(read_log("run/log.jsonl"))
    assert begin["config"]["model"] == "own"
    assert begin["settings"] == {"crop_padding": 1, "flip": False}
    capsys.readouterr()
    assert main([*words, "flip=true", "--resume"]) == 2
    assert "flip was False and is True" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--data", "mine:table"], "cnn takes image sets, and the data are a TensorSet"),
        (["--data", "mine:nothing", "--network", "mine:network"], "two ImageSets, TensorSets or"),
        (["--data", "mine:failing", "--network", "mine:network"], "no such table"),
        (["--data", "mine:absent", "--network", "mine:network"], "cannot be imported"),
        (["--data", "mine:data", "--network", "mine:network"], "give the loss that is meant"),
        (["--data", "mine:table", "--network", "mine:data"], "torch.nn.Module, got tuple"),
        (["--data", "mine:table", "--network", "network"], "write it as module:callable"),
        (["--data", "mine:table", "--dataset", "folder"], "for folders of images"),
        (["--data", "mine:table", "--set", "flip=true"], "for folders of images"),
        (["--network", "mine:network", "--set", "model=cnn"], "leave one of them out"),
        (["--set", "flip=maybe"], "flip"),
        (["--set", "options.momentum=abc"], "options.momentum must be a number, got the text"),
        (["--set", "crop_padding=-1"], "crop_padding must be at least 0"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: Any = main(["train", *words])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr().err
    assert code == 2
    assert part in said
    assert said.count("\n") == 1
