"""Checkpoints that were renamed, or made to keep a reader busy for ever."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import DATA, config, same_weights, small

from flatmin.train import (
    CheckpointError,
    checkpoint,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    train,
)

pytestmark = pytest.mark.timeout(60)  # a reader that hangs is what these tests are about


def test_file_under_another_steps_name_is_refused(tmp_path: Path) -> None:
    first = save_checkpoint(tmp_path, 6, {"a": torch.ones(1)})
    second = save_checkpoint(tmp_path, 12, {"a": torch.zeros(1)})
    renamed = first.rename(tmp_path / first.name.replace("000000006", "000000099"))
    with pytest.raises(CheckpointError, match="was written as step 6, and is named as another"):
        load_checkpoint(renamed)
    with pytest.warns(RuntimeWarning, match="step 6"):
        assert newest_checkpoint(tmp_path)[0] == second


def test_run_goes_on_from_the_checkpoint_that_is_the_newest(tmp_path: Path) -> None:
    whole = train(config(), DATA, model=small(), out=tmp_path)
    old = sorted(tmp_path.glob("step-*"))[0]
    old.rename(tmp_path / old.name.replace("000000006", "000000999"))
    with pytest.warns(RuntimeWarning, match="was written as step 6"):
        rest = train(config(), DATA, model=small(), out=tmp_path, resume=True)
    assert same_weights(whole.model, rest.model)


def shared(depth: int, kind: type = tuple, width: int = 2) -> Any:
    """A small value that is large when it is unfolded."""
    value: Any = kind([1])
    for _ in range(depth):
        value = kind([value] * width)
    return value


def pickled(value: Any) -> bytes:
    """With every part once."""
    return pickle.dumps(value, protocol=2)


def keyed(value: bytes) -> bytes:
    """The pickle of a dictionary with a given value as its key; the value is never hashed here."""
    return b"\x80\x02}" + value[2:-1] + b"K\x01s."


def as_checkpoint(folder: Path, contents: bytes) -> Path:
    """Put a file where a checkpoint is looked for, with the right digest."""
    path = folder / f"step-000000007-{checkpoint._digest(contents)}.pt"
    path.write_bytes(contents)
    return path


def zipped(data: bytes, *, compression: int = zipfile.ZIP_STORED, twice: bool = False) -> bytes:
    """The archive that torch reads, around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        if twice:
            archive.writestr("other/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


ROOM = b"\x80\x02c__builtin__\nbytearray\n\x8a\x06" + b"\0" * 5 + b"\x40\x85R."
ZEROS = pickled({"a": "0" * 10_000_000})
HOSTILE = {
    "key of shared tuples": zipped(keyed(pickled(shared(60)))),
    "key of wide tuples": zipped(keyed(pickled(shared(5, width=1000)))),
    "shared tuples": zipped(pickled({"fingerprint": shared(60)})),
    "shared lists": zipped(pickled({"fingerprint": {"format": shared(60, list)}})),
    "room that is not filled": zipped(ROOM),
    "more than it holds": zipped(ZEROS, compression=zipfile.ZIP_DEFLATED),
    "two pickles": zipped(pickled({}), twice=True),
    "bare pickle": pickled({"a": shared(60)}),
    "nothing": b"",
    "a stack that is not there": zipped(b"\x80\x02\x86\x86."),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_small_file_that_unfolds_without_end_is_refused(tmp_path: Path, name: str) -> None:
    path = as_checkpoint(tmp_path, HOSTILE[name])
    with pytest.raises(CheckpointError, match="refused"):
        load_checkpoint(path)


def test_values_that_hold_themselves_are_refused(tmp_path: Path) -> None:
    cycle: list[Any] = [1]
    cycle += [cycle, cycle]
    with pytest.raises(CheckpointError, match="refused"):
        load_checkpoint(as_checkpoint(tmp_path, zipped(pickled({"a": cycle}))))


def test_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(1).expand(1 << 40)}, buffer)
    with pytest.raises(CheckpointError, match="refused"):
        load_checkpoint(as_checkpoint(tmp_path, buffer.getvalue()))


def test_ordinary_archive_of_the_same_making_is_read(tmp_path: Path) -> None:
    """The files above are refused for what is in them, not for how they were made."""
    state = {"a": (1, [2, (3, "x")]), "wide": shared(3, width=10), ("key", 1): None}
    assert load_checkpoint(as_checkpoint(tmp_path, zipped(pickled(state)))) == state


def test_deep_but_honest_state_is_saved(tmp_path: Path) -> None:
    state = {"nested": shared(40, list, width=1), "seed": 2**64 - 1}
    assert load_checkpoint(save_checkpoint(tmp_path, 1, state)) == state


@pytest.mark.parametrize("key", ["network", "buffers", "random", "place", "history", "switches"])
@pytest.mark.parametrize("change", ["missing", "of another kind"])
def test_sound_file_that_is_no_state_of_this_run_is_one_sentence(
    tmp_path: Path, key: str, change: str
) -> None:
    train(config(epochs=1), DATA, model=small(), out=tmp_path)
    path, state = newest_checkpoint(tmp_path)
    path.unlink()
    state.pop(key) if change == "missing" else state.update({key: 3})
    save_checkpoint(tmp_path, 6, state)
    with pytest.raises(CheckpointError, match="does not hold what it should") as caught:
        train(config(epochs=1), DATA, model=small(), out=tmp_path, resume=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["config", "network", "data", "processes"])
def test_fingerprint_that_lacks_something_is_one_sentence(tmp_path: Path, key: str) -> None:
    train(config(epochs=1), DATA, model=small(), out=tmp_path)
    path, state = newest_checkpoint(tmp_path)
    path.unlink()
    del state["fingerprint"][key]
    save_checkpoint(tmp_path, 6, state)
    with pytest.raises(CheckpointError, match="does not describe its run"):
        train(config(epochs=1), DATA, model=small(), out=tmp_path, resume=True)
