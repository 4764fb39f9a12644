"""What a run writes beside its checkpoints."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from small_runs import DATA, config, small

from flatmin.train import read_log, train


def test_lines_tell_the_run(tmp_path: Path) -> None:
    run = train(config(), DATA, model=small(), out=tmp_path, log_every=4)
    lines = list(read_log(tmp_path / "log.jsonl"))
    assert [line["event"] for line in lines] == [
        "start", "step", "epoch", "step", "step", "epoch"
    ]  # fmt: skip
    assert lines[0]["config"]["batch_size"] == 10
    assert lines[0]["threads"] == torch.get_num_threads()
    assert [line["step"] for line in lines[1:]] == [4, 6, 8, 12, 12]
    assert lines[2]["test_accuracy"] == run.history[0].test_accuracy
    assert lines[2]["running_loss"] > 0


def test_every_line_is_strict_json(tmp_path: Path) -> None:
    train(config(), DATA, model=small(), out=tmp_path)

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_line_that_was_cut_off_is_dropped_on_resumption(tmp_path: Path) -> None:
    train(config(), DATA, model=small(), out=tmp_path)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"event": "ep')
    train(config(), DATA, model=small(), out=tmp_path, resume=True)
    events = [line["event"] for line in read_log(tmp_path / "log.jsonl")]
    assert events == ["start", "epoch", "epoch", "resume"]


def test_tensorboard_on_request(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(config(), DATA, model=small(), out=tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    values = [event.value for event in events.Scalars("epoch/test_accuracy")]
    assert values == pytest.approx([epoch.test_accuracy for epoch in run.history], rel=1e-6)


def test_missing_tensorboard_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"flatmin\[integrations\]"):
        train(config(), DATA, model=small(), out=tmp_path, tensorboard=True)


def test_nothing_is_written_without_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train(config(), DATA, model=small(), progress="small")
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")  # no terminal, no bar


class Terminal(io.StringIO):
    """Remembers what a terminal would show."""

    def isatty(self) -> bool:
        return True


def test_bar_with_time_left_and_throughput_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm = pytest.importorskip("tqdm").tqdm
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # no thread that outlives the bar
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    train(config(), DATA, model=small(), progress="small", log_every=1)
    shown = terminal.getvalue()
    assert all(word in shown for word in ("small", "/120 [", "<", "img/s"))
