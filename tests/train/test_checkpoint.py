"""A checkpoint is whole or not there, and what is not sound is refused by name."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from flatmin.train import (
    CheckpointError,
    checkpoint,
    checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)

STATE: dict[str, Any] = {
    "weights": {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.int64)},
    "numbers": [1, 2.5, None, True, "text"],
    "pair": (0.9, 0.999),
}


def test_round_trip(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 3, STATE)
    back = load_checkpoint(path)
    assert torch.equal(back["weights"]["a"], STATE["weights"]["a"])
    assert back["numbers"] == STATE["numbers"]
    assert back["pair"] == STATE["pair"]
    assert os.listdir(tmp_path) == [path.name]


def test_anyone_can_read_it_with_torch_alone(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 3, STATE)
    assert torch.load(path, weights_only=True)["numbers"][4] == "text"


@pytest.mark.parametrize("keep", [1, 3])
def test_last_ones_are_kept(tmp_path: Path, keep: int) -> None:
    for step in (9, 10, 11, 100, 1000):
        save_checkpoint(tmp_path, step, {"step": step}, keep=keep)
    steps = [load_checkpoint(path)["step"] for path in checkpoints(tmp_path)]
    assert steps == [1000, 100, 11][:keep]


def damaged(path: Path, how: str) -> None:
    """Do to a file what disks and people do."""
    contents = bytearray(path.read_bytes())
    if how == "truncated":
        contents = contents[: len(contents) // 2]
    elif how == "empty":
        contents = bytearray()
    elif how == "longer":
        contents += b"\0"
    else:
        contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)


@pytest.mark.parametrize("how", ["truncated", "empty", "longer", "one bit"])
def test_damaged_newest_is_named_and_the_one_before_is_used(tmp_path: Path, how: str) -> None:
    first = save_checkpoint(tmp_path, 1, {"step": 1})
    second = save_checkpoint(tmp_path, 2, {"step": 2})
    damaged(second, how)
    with pytest.warns(RuntimeWarning, match=second.name):
        found = newest_checkpoint(tmp_path)
    assert found == (first, {"step": 1})
    damaged(first, how)
    with pytest.warns(RuntimeWarning), pytest.raises(CheckpointError, match="another folder"):
        newest_checkpoint(tmp_path)


def test_missing_and_renamed_files_are_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"step": 1})
    with pytest.raises(CheckpointError, match="not named"):
        load_checkpoint(path.rename(tmp_path / "best.pt"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(path)
    taken = shutil.copy(tmp_path / "best.pt", tmp_path / f"step-000000002-{'0' * 16}.pt")
    with pytest.raises(CheckpointError, match="altered"):
        load_checkpoint(Path(taken))


class Evil:
    """Runs code when an ordinary unpickler reads it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("maker", ["torch", "pickle"])
def test_file_of_a_stranger_runs_no_code(tmp_path: Path, maker: str) -> None:
    """The digest in its name is right: that, everyone can compute."""
    target, file = tmp_path / "ran", tmp_path / "file"
    if maker == "torch":
        torch.save({"weights": Evil(target)}, file)
    else:
        file.write_bytes(pickle.dumps(Evil(target)))
    digest = checkpoint._digest(file.read_bytes())
    path = file.rename(tmp_path / f"step-000000005-{digest}.pt")
    with pytest.raises(CheckpointError, match="refused"):
        load_checkpoint(path)
    assert not target.exists()
    if maker == "torch":
        torch.load(path, weights_only=False)
        assert target.exists()  # the file is what this test says it is


def test_state_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1})
    with pytest.raises(CheckpointError, match="step 2"):
        save_checkpoint(tmp_path, 2, {"odd": Path("x")})
    assert [path.name[:14] for path in checkpoints(tmp_path)] == ["step-000000001"]


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


def test_full_disk_leaves_the_old_one_intact(tmp_path: Path) -> None:
    """A limit on the size of files makes the kernel refuse in the middle of a write."""
    old = save_checkpoint(tmp_path, 1, {"step": 1})
    big = {"weights": torch.zeros(1 << 16)}

    def fill() -> int:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that write() fails with an error
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, 1 << 15))
        try:
            save_checkpoint(tmp_path, 2, big)
        except CheckpointError as error:
            said = str(error)
            return 0 if old.name in said and "intact" in said and "room" in said else 1
        return 2

    assert in_child(fill) == 0
    assert os.listdir(tmp_path) == [old.name]
    assert newest_checkpoint(tmp_path) == (old, {"step": 1})
    save_checkpoint(tmp_path, 2, big)  # with room again


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_any_failing_call_leaves_the_old_one_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    old = save_checkpoint(tmp_path, 1, {"step": 1})

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(tmp_path, 2, {"step": 2})
    assert os.listdir(tmp_path) == [old.name]


def test_folder_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no earlier one"):
        save_checkpoint(tmp_path / "gone", 1, {"step": 1})


@pytest.mark.parametrize("call", ["fsync", "replace", "unlink"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_stage_of_a_save(tmp_path: Path, call: str, when: str) -> None:
    """Kill −9 around each system call: the newest sound one is the old or the new, never none."""
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"step": step})
    owner: Any = Path if call == "unlink" else os
    real = getattr(owner, call)

    def die(*arguments: Any, **options: Any) -> Any:
        if when == "after":
            real(*arguments, **options)
        os.kill(os.getpid(), 9)

    def killed() -> int:
        setattr(owner, call, die)
        save_checkpoint(tmp_path, 3, {"step": 3})
        return 0

    assert in_child(killed) == -9
    found = newest_checkpoint(tmp_path)
    assert found is not None
    survived = call == "unlink" or (call == "replace" and when == "after")
    assert found[1] == {"step": 3 if survived else 2}
    save_checkpoint(tmp_path, 4, {"step": 4})
    assert len(os.listdir(tmp_path)) == 2  # the leftovers are gone
