"""The log after crashes, on full disks and in folders that cannot be written."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import DATA, config, small

from flatmin.cli import main
from flatmin.train import NotWritable, TrainConfig, newest_checkpoint, read_log, train
from flatmin.train.log import Log
from slowly import slow_but

QUICK = ["train", "--set", "model=wrn-10-1", "epochs=1", "batch_size=512", "evaluate_train=0"]


def epochs(folder: Path) -> list[int]:
    """Numbers of the epochs in the log."""
    return [line["epoch"] for line in read_log(folder / "log.jsonl") if line["event"] == "epoch"]


class Crash(Exception):
    """Stands for a power cut: nothing of the trainer's own handles it."""


def crashed(folder: Path, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> None:
    """Train until the second epoch is in the log, and die before its checkpoint."""
    real = Log.epoch

    def epoch(self: Log, record: Any) -> None:
        real(self, record)
        if record.epoch == 2:
            raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Log, "epoch", epoch)
        train(config(epochs=3), DATA, model=small(), out=folder, **arguments)


@pytest.mark.parametrize("left", ["", '{"event": "ep'])
@pytest.mark.parametrize("resume", slow_but([True, False], True))
def test_crash_before_the_first_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str, resume: bool
) -> None:
    for number in (1, 2):
        crashed(tmp_path, monkeypatch, save_every=1000, resume=resume)
        with (tmp_path / "log.jsonl").open("a") as file:
            file.write(left)
        assert epochs(tmp_path) == [1, 2]
        assert len(list(tmp_path.glob("log-*.jsonl"))) == number - 1  # nothing is thrown away
    train(config(epochs=3), DATA, model=small(), out=tmp_path, resume=resume)
    assert epochs(tmp_path) == [1, 2, 3]
    assert [line["event"] for line in read_log(tmp_path / "log.jsonl")].count("start") == 1
    assert len(list(tmp_path.glob("log-*.jsonl"))) == 2


def damage(log: Path, how: str) -> None:
    """Do to a log what disks and people do."""
    contents = bytearray(log.read_bytes())
    if how == "removed":
        log.unlink()
        return
    if how == "truncated":
        contents = contents[: len(contents) // 3]
    elif how == "emptied":
        contents = bytearray()
    elif how == "zeros":  # what a power cut leaves
        contents[10:200] = bytes(190)
    else:
        contents[40] ^= 1
    log.write_bytes(contents)


@pytest.mark.parametrize(
    "how", slow_but(["removed", "truncated", "emptied", "zeros", "one bit"], "removed", "one bit")
)
def test_damage_is_noticed_on_resumption_and_the_log_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    crashed(tmp_path, monkeypatch)
    damage(tmp_path / "log.jsonl", how)
    with pytest.warns(RuntimeWarning, match=r"log.jsonl is not what the run wrote"):
        train(config(epochs=3), DATA, model=small(), out=tmp_path, resume=True)
    assert epochs(tmp_path) == [1, 2, 3]
    lines = list(read_log(tmp_path / "log.jsonl"))
    assert [line["event"] for line in lines] == ["start", "epoch", "resume", "epoch", "epoch"]
    assert len(list(tmp_path.glob("log-*.jsonl"))) == (how not in ("removed", "emptied"))


def test_sound_log_is_continued_in_place_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed(tmp_path, monkeypatch)
    before = (tmp_path / "log.jsonl").read_bytes()
    train(config(epochs=3), DATA, model=small(), out=tmp_path, resume=True)
    after = (tmp_path / "log.jsonl").read_bytes()
    assert after[:200] == before[:200]
    assert epochs(tmp_path) == [1, 2, 3]
    assert not list(tmp_path.glob("log-*.jsonl"))


def test_line_that_is_no_record_is_left_out_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"event": "a"}\n{"event": "ep{"event": "b"}\n\xff\n[1]\n{"event": "c"}\n{"e')
    with pytest.warns(RuntimeWarning, match=r"Line \d of .* is no record") as caught:
        assert [line["event"] for line in read_log(path)] == ["a", "c"]
    assert [str(each.message).split()[1] for each in caught] == ["2", "3", "4"]


def in_child(action: Any) -> int:
    """Run in a copy of this process, and give its exit code."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = action()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_full_disk_cuts_no_line_and_a_resumed_run_reads_on(tmp_path: Path) -> None:
    """The kernel refuses in the middle of a line, at any byte; the records before it stay."""
    train(config(epochs=1), DATA, model=small(), out=tmp_path / "whole", log_every=1)
    size = (tmp_path / "whole" / "log.jsonl").stat().st_size
    for limit in range(size - 200, size, 37):
        folder = tmp_path / str(limit)

        def fill(folder: Path = folder, limit: int = limit) -> int:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                train(config(epochs=1), DATA, model=small(), out=folder, log_every=1)
            except NotWritable as error:
                return 0 if "log.jsonl cannot be written (File too large)" in str(error) else 1
            return 2

        assert in_child(fill) == 0
        contents = (folder / "log.jsonl").read_bytes()
        assert contents.endswith(b"\n")
        assert all(json.loads(line) for line in contents.splitlines())
        train(config(epochs=1), DATA, model=small(), out=folder, log_every=1, resume=True)
        assert epochs(folder) == [1]


@pytest.mark.parametrize("what", ["log is a folder", "disk is full", "read-only"])
def test_log_that_cannot_be_written_is_one_sentence_and_code_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    if what == "log is a folder":
        (tmp_path / "log.jsonl").mkdir()
    elif what == "disk is full":

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
    else:

        def refuse(self: Path, *arguments: Any, **options: Any) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "mkdir", refuse)
    assert main([*QUICK, "--out", str(tmp_path)]) == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "cannot be" in said
    assert str(tmp_path) in said


def test_reason_of_a_stop_is_not_hidden_by_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            def full(self: Log, event: str, **values: Any) -> None:
                raise NotWritable("full")

            monkeypatch.setattr(Log, "write", full)
            raise RuntimeError("mat1 and mat2")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(config(), DATA, model=Failing(), out=tmp_path)


def test_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(RuntimeError, match="cannot be listed"):
        newest_checkpoint(tmp_path)


def test_infinite_setting_is_strict_json(tmp_path: Path) -> None:
    chosen = config(epochs=1, minimizer="sam", p=float("inf"))
    train(chosen, DATA, model=small(), out=tmp_path)
    first = next(read_log(tmp_path / "log.jsonl"))["config"]
    assert first["p"] == "inf"
    assert TrainConfig(**first) == chosen
    train(chosen, DATA, model=small(), out=tmp_path, resume=True)


def test_full_disk_under_anything_else_is_one_sentence_too(tmp_path: Path) -> None:
    class Caching(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise OSError(errno.ENOSPC, "No space left on device", "cache/kernel.so")

    with pytest.raises(
        NotWritable, match=r"cache/kernel.so cannot be written \(No space.*none was"
    ):
        train(config(), DATA, model=Caching(), out=tmp_path)
