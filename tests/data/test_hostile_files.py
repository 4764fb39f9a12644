"""Files that would hang a reader, fill the memory, or pass for others: refused, in one sentence."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cifar_files import (
    batch_dict,
    encode,
    make_cifar,
    python2_pickle,
    python_files,
    write_folder,
    write_hub,
    write_tar,
)

from flatmin.data import _archive, cifar, load_cifar10, load_image_folder
from flatmin.data._unpickle import unpickle

CIFAR10 = make_cifar(10)
PYTHON = python_files(CIFAR10, 10)
NAME = "cifar-10-python.tar.gz"


def refused(place: Path, words: str, load: Callable[[Path], object] = load_cifar10) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        load(place)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", ""])
def test_archives_of_every_compression(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "cifar.tar"
    with tarfile.open(path, f"w:{kind}") as archive:
        for name, content in PYTHON.items():
            member = tarfile.TarInfo(f"x/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    train, _ = load_cifar10(path)
    assert len(train) == 15
    clean = train.fingerprint()
    for place in range(100, path.stat().st_size - 1, path.stat().st_size // 20):
        good = path.read_bytes()
        bad = bytearray(good)
        bad[place] ^= 4
        path.write_bytes(bad)
        if kind:  # a plain archive has no check of what is in its files
            with pytest.raises(ValueError, match="is no readable tar archive"):
                load_cifar10(path)
        path.write_bytes(good)
    assert load_cifar10(path)[0].fingerprint() == clean


def test_more_than_any_archive_holds_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_archive, "_LARGEST", 2**20)
    zeros = gzip.compress(bytes(2**22))
    (tmp_path / "zeros").mkdir()
    (tmp_path / "zeros" / NAME).write_bytes(zeros)
    refused(tmp_path / "zeros", "more than 1,048,576 bytes")
    for name in ("data_batch_1", "data_batch_6"):  # wanted, or passed over
        large = write_tar(tmp_path / name / NAME, {**PYTHON, name: bytes(2**21)})
        refused(large.parent, "more than 1,048,576 bytes")
    folder = write_folder(tmp_path / "folder", PYTHON)
    with (folder / "data_batch_2").open("ab") as file:
        file.truncate(2**21)
    refused(folder, "data_batch_2 holds more than")


def test_a_sparse_file_in_an_archive_fills_no_memory(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("x/data_batch_1")
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.realsize": str(3 * 2**30),
            "GNU.sparse.name": "x/data_batch_1",
        }
        content = b"1\n0\n1\n".ljust(512, b"\0") + b"x".ljust(512, b"\0")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    refused(path, "holds more than")


def test_pipes_and_folders_among_the_files(tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "hub", CIFAR10)
    (hub / "train-00000-of-00001.parquet").unlink()
    os.mkfifo(hub / "train-00000-of-00001.parquet")
    refused(hub, "lacks train-")
    official = write_folder(tmp_path / "official", PYTHON)
    (official / "data_batch_3").unlink()
    os.mkfifo(official / "data_batch_3")
    refused(official, "lacks data_batch_3,")
    images = tmp_path / "images"
    for split in ("train", "test"):
        for name in "ab":
            write_folder(images / split / name, {"1.png": encode(CIFAR10["test_batch"][0][0])})
    os.mkfifo(images / "train" / "b" / "2.png")
    refused(images, "2.png is no file", load_image_folder)
    (images / "train" / "b" / "2.png").unlink()
    (images / "train" / "b" / "2.png").mkdir()
    refused(images, "2.png is a folder", load_image_folder)


@pytest.mark.parametrize(
    "label", [2**63, -(2**63) - 1, 2**64 - 1, 10**400], ids=["63", "-63", "64", "400"]
)
def test_labels_that_no_integer_of_a_machine_holds(label: int, tmp_path: Path) -> None:
    images, labels = CIFAR10["data_batch_2"]
    batch = python2_pickle(batch_dict((images, [label, *labels[1:]]), 10))
    write_folder(tmp_path / "python", {**PYTHON, "data_batch_2": batch})
    refused(tmp_path / "python", "data_batch_2 holds the label")
    if 0 < label < 2**64:
        hub = write_parquet(tmp_path / "hub", labels=[label, 1, 2])
        refused(hub, f"test-0.parquet holds the label {label}, ")


def write_parquet(folder: Path, labels: list[int], doubled: str = "") -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_hub(folder, CIFAR10)
    (folder / "test-00000-of-00001.parquet").unlink()
    rows = [{"bytes": encode(image), "path": None} for image in CIFAR10["test_batch"][0]]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"img": pa.array(rows, kind), "label": pa.array(labels, pa.uint64())}
    names = [*columns, *([doubled] if doubled else [])]
    table = pa.Table.from_arrays([columns[name] for name in names], names)
    pq.write_table(table, folder / "test-0.parquet")
    return folder


@pytest.mark.parametrize("column", ["img", "label"])
def test_doubled_columns(column: str, tmp_path: Path) -> None:
    assert len(load_cifar10(write_parquet(tmp_path / "once", [0, 1, 2]))[1]) == 3
    refused(write_parquet(tmp_path / "twice", [0, 1, 2], column), "test-0.parquet has the columns")


def nested(value: Any, depth: int = 60) -> Any:
    for _ in range(depth):
        value = (value, value)
    return value


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("place", ["key", "value", "shape", "type", "encoding"])
def test_nested_tuples_take_no_time(place: str, protocol: int) -> None:
    """Python takes 2⁶⁰ steps to hash, to compare or to write one of them."""
    end = nested(1)

    class Asks:
        def __reduce__(self) -> Any:
            import _codecs

            if place == "encoding":
                return _codecs.encode, ("x", end)
            if place == "type":
                return np.dtype, (end, 0, 1)
            make, arguments, state = np.zeros(3, np.uint8).__reduce__()
            return make, arguments, (state[0], end, *state[2:])

    if place == "key":
        written = _with_key(end, protocol)
    else:
        found = {"labels": end} if place == "value" else {"data": Asks()}
        written = pickle.dumps(found, protocol)
    if place == "value":
        assert set(unpickle(written, "batch")) == {"labels"}
    else:
        with pytest.raises(ValueError, match=r"batch is no readable pickle"):
            unpickle(written, "batch")


def _with_key(key: Any, protocol: int) -> bytes:
    """A dict whose key Python itself would never finish to hash."""
    inner = pickle.dumps(key, protocol)[:-1]
    head = inner[: 2 if protocol > 1 else 0]
    body = inner[len(head) :]
    if protocol >= 4:  # its frame ends with the key
        body = body[9:]
    return head + b"}" + body + b"K\x01s."


def test_a_text_again_and_again_fills_no_memory() -> None:
    text = "x" * 1000
    once = b"c_codecs\nencode\nX\xe8\x03\x00\x00" + text.encode() + b"q\x01X\x06\x00\x00\x00latin1"
    assert unpickle(b"\x80\x02}U\x01a" + once + b"\x86Rs.", "x") == {b"a": text.encode()}
    again = b"".join(b"U\x02%02dc_codecs\nencode\nh\x01U\x06latin1\x86Rs" % k for k in range(50))
    with pytest.raises(ValueError, match="more bytes than the pickle has"):
        unpickle(b"\x80\x02}U\x01a" + once + b"\x86Rs" + again + b".", "x")


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive whose digest is known."""
    path = write_tar(tmp_path / "known" / NAME, PYTHON)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    official = replace(cifar.CIFAR10.official, size=len(content), sha256=digest)
    monkeypatch.setattr(cifar, "CIFAR10", replace(cifar.CIFAR10, official=official))
    return path


def test_an_archive_of_the_official_size_must_be_the_official_one(known: Path) -> None:
    assert len(load_cifar10(known.parent)[0]) == 15
    content = bytearray(known.read_bytes())
    content[8] ^= 1  # in the header, which no check of gzip covers
    known.write_bytes(content)
    refused(known.parent, "is not the official cifar-10-python.tar.gz: its SHA-256 is")
    renamed = known.rename(known.with_name("renamed.tgz"))
    refused(renamed, "is not the official")


def test_nor_does_a_download_take_another_one(known: Path) -> None:
    assert len(load_cifar10(known.parent, download=True)[0]) == 15
    write_tar(known, python_files(make_cifar(10, n=4), 10))
    assert len(load_cifar10(known.parent)[0]) == 20  # some images, and it says so
    before = known.read_bytes()
    for place in (known, known.parent, known.parent.parent):
        refused(place, "remove it, and get it again", lambda p: load_cifar10(p, download=True))
    assert known.read_bytes() == before  # the user's, whatever it is
