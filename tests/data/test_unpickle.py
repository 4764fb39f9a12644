import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cifar_files import batch_dict, make_batch, python2_pickle, python_files, write_folder

from flatmin.data import load_cifar10
from flatmin.data._unpickle import unpickle

BATCH = batch_dict(make_batch(2, 10, seed=0), 10)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_reads_what_python_3_writes(protocol: int) -> None:
    found = unpickle(pickle.dumps(BATCH, protocol), "batch")
    assert np.array_equal(found["data"], BATCH["data"])
    assert found["data"].dtype == np.uint8
    assert {k: v for k, v in found.items() if k != "data"} == {
        k: v for k, v in BATCH.items() if k != "data"
    }


def test_reads_what_python_2_wrote() -> None:
    written = python2_pickle(BATCH)
    assert b"cnumpy.core.multiarray\n_reconstruct" in written
    assert b"_codecs" not in written
    found = unpickle(written, "batch")
    assert set(found) == {key.encode() for key in BATCH}
    assert np.array_equal(found[b"data"], BATCH["data"])
    assert found[b"labels"] == BATCH["labels"]


def test_reads_arrays_in_fortran_order() -> None:
    array = np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    assert np.array_equal(unpickle(pickle.dumps({"a": array}, 4), "x")["a"], array)


class Runs:
    """Calls a function when it is unpickled by the ordinary unpickler."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_hostile_pickles_run_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    calls = [
        Runs(os.system, f"touch {mark}"),
        Runs(eval, f"open({str(mark)!r}, 'w')"),
        Runs(exec, f"open({str(mark)!r}, 'w')"),
        Runs(open, str(mark), "w"),
        Runs(os.mkdir, str(mark)),
        Runs(__import__, "os"),
        Runs(np.save, str(mark), 1),
        collections.OrderedDict(),
        np.float64(1.0),
        print,
    ]
    for call in calls:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(ValueError, match=r"asks for .* none of it was run"):
                unpickle(pickle.dumps(BATCH | {"data": call}, protocol), "batch")
    assert not mark.exists()
    pickle.loads(pickle.dumps(calls[4]))  # the ordinary unpickler does run it
    assert mark.exists()


def test_the_loader_refuses_a_hostile_batch(tmp_path: Path) -> None:
    files = python_files({f"data_batch_{k}": make_batch(2, 10, k) for k in range(1, 6)}, 10)
    files["test_batch"] = pickle.dumps(Runs(os.mkdir, str(tmp_path / "mark")), 2)
    with pytest.raises(ValueError, match=r"test_batch asks for .*mkdir"):
        load_cifar10(write_folder(tmp_path / "data", files))
    assert not (tmp_path / "mark").exists()


def test_only_bytes_become_arrays() -> None:
    for array in (
        np.zeros(3, np.float32),
        np.zeros(3, np.int8),
        np.zeros(3, "S1"),
        np.array([None, 1], dtype=object),
        np.zeros(2, [("a", np.uint8)]),
    ):
        with pytest.raises(ValueError, match="uint8"):
            unpickle(pickle.dumps({"data": array}, 4), "batch")


def test_the_bytes_must_fill_the_shape() -> None:
    # numpy's own classes would take the type and the memory layout from the pickle.
    written = pickle.dumps({"data": np.zeros((3, 5), np.uint8)}, 2)
    assert written.count(b"K\x03K\x05\x86") == 1
    with pytest.raises(ValueError, match="fill its shape"):
        unpickle(written.replace(b"K\x03K\x05\x86", b"K\xffK\xff\x86"), "batch")


def test_a_huge_memo_slot_allocates_nothing() -> None:
    # The unpickler keeps a table as long as the largest slot: this one would take 32 GB.
    with pytest.raises(ValueError, match="memo slot 2147483647"):
        unpickle(b"}r\xff\xff\xff\x7f.", "batch")


@pytest.mark.parametrize("value", [[1, 2], "text", 5, None, np.zeros(2, np.uint8)])
def test_refuses_what_is_no_dict(value: object) -> None:
    with pytest.raises(ValueError, match="expected a dict"):
        unpickle(pickle.dumps(value, 4), "batch")


def test_every_truncation_is_one_sentence() -> None:
    small = {"data": np.zeros((1, 9), np.uint8), "labels": [1, 2], "x": 1.5}
    for written in (python2_pickle(small), *(pickle.dumps(small, k) for k in range(5))):
        for length in range(len(written)):
            with pytest.raises(ValueError, match="truncated"):
                unpickle(written[:length], "batch")


def test_random_damage_never_ends_in_another_error() -> None:
    random = np.random.default_rng(0)
    written = python2_pickle({"data": np.zeros((1, 9), np.uint8), "labels": [1, 2], "x": 1.5})
    refused = 0
    for _ in range(2000):
        damaged = bytearray(written)
        for position in random.integers(0, len(written), 3):
            damaged[position] = random.integers(0, 256)
        try:
            unpickle(bytes(damaged), "batch")
        except ValueError:
            refused += 1
    assert refused > 1000
