"""``flatmin train``: options, exit codes, one sentence for each kind of bad input."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from flatmin.cli import main
from flatmin.train import newest_checkpoint, read_log, state, train

QUICK = ["train", "--set", "model=wrn-10-1", "epochs=1", "batch_size=512", "evaluate_train=100"]


def test_trains_digits_and_finds_the_end_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*QUICK, "optimizer=adam", "options.betas=(0.8,0.9)", "lr=1e-3", "--out", str(tmp_path)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "test" in said
    assert str(newest_checkpoint(tmp_path)[0]) in said
    first = next(read_log(tmp_path / "log.jsonl"))
    config, settings = first["config"], first["settings"]
    assert (config["options"], config["lr"]) == ({"betas": [0.8, 0.9]}, 0.001)
    assert (settings["flip"], settings["crop_padding"]) == (False, 0)  # digits
    assert main([*words, "--resume"]) == 0
    assert capsys.readouterr().out == said
    assert main(words) == 2
    assert "resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--set", "epoch=3"], "there is no option 'epoch'"),
        (["--set", "momentum=0.9"], "one of the optimizer's own is options.momentum"),
        (["--set", "epochs"], "name=value"),
        (["--set", "epochs=many"], "integer"),
        (["--set", "options=3"], "options.name"),
        (["--set", "options.momentun=0.9"], "momentum"),
        (["--set", "minimizer=sma"], "asam"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--device", "tpu"], "device"),
        (["--parallel", "tp"], "ddp"),
        (["--keep", "0"], "keep"),
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_have_their_own_codes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: int,
) -> None:
    real = state.State.advance

    def advance(self: Any, batches: Any) -> int | None:
        os.kill(os.getpid(), number)
        return real(self, batches)

    monkeypatch.setattr(state.State, "advance", advance)
    assert main([*QUICK, "--out", str(tmp_path)]) == code
    assert f"{newest_checkpoint(tmp_path)[0]}.\n" in capsys.readouterr().err


def test_loss_that_is_not_finite_is_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*QUICK, "lr=1e38", "batch_size=64"]
    assert main(words) == 3
    assert "not finite" in capsys.readouterr().err


def test_failed_save_is_code_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*paths: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert main([*QUICK, "--out", str(tmp_path)]) == 4
    assert "No space left" in capsys.readouterr().err


@pytest.mark.slow
def test_the_verb_calls_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def remember(config: Any, data: Any, **arguments: Any) -> Any:
        seen.update(arguments, config=config, images=data[0].images.shape)
        return train(config, data)

    monkeypatch.setattr("flatmin.cli.train.train", remember)
    assert main([*QUICK, "minimizer=asam", "--save-every", "7", "--parallel", "fsdp"]) == 0
    assert (seen["save_every"], seen["parallel"], seen["keep"]) == (7, "fsdp", 2)
    assert seen["config"].minimizer == "asam"
    assert list(seen["images"][1:]) == [1, 8, 8]
