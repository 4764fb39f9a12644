import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cifar_files import (
    Batch,
    binary_files,
    encode,
    joined,
    make_cifar,
    python_files,
    write_folder,
    write_hub,
    write_parquet,
    write_tar,
)

from flatmin.data import ImageSet, load_cifar10, load_cifar100

pytest.importorskip("pyarrow")
pytest.importorskip("PIL")

CIFAR10 = make_cifar(10)
CIFAR100 = make_cifar(100)


def same(pair: tuple[ImageSet, ImageSet], batches: dict[str, Batch]) -> None:
    for found, (images, labels) in zip(pair, joined(batches).values(), strict=True):
        assert torch.equal(found.images, torch.from_numpy(images))
        assert found.labels.tolist() == labels


WRITERS: dict[str, Callable[[Path, dict[str, Batch], int], Path]] = {
    "python": lambda path, made, k: write_folder(path, python_files(made, k)),
    "binary": lambda path, made, k: write_folder(path, binary_files(made, k)),
    "python inside": lambda path, made, k: (
        write_folder(path / f"cifar-{k}-python", python_files(made, k)).parent
    ),
    "python.tar.gz": lambda path, made, k: (
        write_tar(path / f"cifar-{k}-python.tar.gz", python_files(made, k)).parent
    ),
    "binary.tar.gz": lambda path, made, k: (
        write_tar(path / f"cifar-{k}-binary.tar.gz", binary_files(made, k)).parent
    ),
    "the archive itself": lambda path, made, k: write_tar(
        path / "renamed.tgz", python_files(made, k)
    ),
    "hub": lambda path, made, k: write_hub(path, made, label="label" if k == 10 else "fine_label"),
    "hub inside": lambda path, made, k: (
        write_hub(path / "plain_text", made, label="label" if k == 10 else "fine_label").parent
    ),
}


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_gives_the_same_images(form: str, tmp_path: Path) -> None:
    folder = WRITERS[form](tmp_path / "ten", CIFAR10, 10)
    pair = load_cifar10(folder)
    same(pair, CIFAR10)
    assert pair[0].source == "CIFAR-10 (15 of 50,000 train images)"
    assert pair[1].source == "CIFAR-10 (3 of 10,000 test images)"
    assert pair[0].mean == (0.4914, 0.4822, 0.4465)

    folder = WRITERS[form](tmp_path / "hundred", CIFAR100, 100)
    pair = load_cifar100(str(folder))
    same(pair, CIFAR100)
    assert len(pair[0].classes) == 100
    assert pair[0].classes == tuple(sorted(pair[0].classes))


def test_class_names_are_those_of_the_official_meta_file() -> None:
    from flatmin.data._kind import CIFAR10 as TEN
    from flatmin.data._kind import CIFAR100 as HUNDRED

    assert (TEN.classes[0], TEN.classes[3], TEN.classes[9]) == ("airplane", "cat", "truck")
    known = {0: "apple", 19: "cattle", 47: "maple_tree", 75: "skunk", 99: "worm"}
    assert all(HUNDRED.classes[number] == name for number, name in known.items())


def test_nothing_is_written_beside_the_data(tmp_path: Path) -> None:
    write_hub(tmp_path / "hub", CIFAR10)
    write_tar(tmp_path / "tar" / "cifar-10-python.tar.gz", python_files(CIFAR10, 10))
    before = sorted(tmp_path.rglob("*"))
    load_cifar10(tmp_path / "hub")
    load_cifar10(tmp_path / "tar")
    assert sorted(tmp_path.rglob("*")) == before


def test_jpeg_is_called_recompressed(tmp_path: Path) -> None:
    train, test = load_cifar10(write_hub(tmp_path, CIFAR10, "JPEG"))
    assert train.source == "CIFAR-10 (JPEG-recompressed copy; 15 of 50,000 train images)"
    assert "JPEG" in test.source
    error = train.images.int() - torch.from_numpy(joined(CIFAR10)["train"][0]).int()
    assert 0 < error.abs().float().mean() < 32  # similar, and not the same


def test_images_may_come_in_several_files(tmp_path: Path) -> None:
    images, labels = joined(CIFAR10)["train"]
    encoded = [encode(image) for image in images]
    for part in (0, 1):
        here = slice(10 * part, 10 * part + 10)
        path = tmp_path / f"train-0000{part}-of-00002.parquet"
        write_parquet(path, encoded[here], labels[here], image="image")
    test_images, test_labels = CIFAR10["test_batch"]
    write_parquet(tmp_path / "test-0.parquet", [encode(x) for x in test_images], test_labels)
    same(load_cifar10(tmp_path), CIFAR10)
    same(load_cifar10(path), CIFAR10)  # one of the files names its folder
    path.unlink()
    with pytest.raises(ValueError, match="one of 2 files, but 1"):
        load_cifar10(tmp_path)


def test_cache_gives_the_same_and_is_made_again_if_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flatmin.data import _parquet

    folder, cache = write_hub(tmp_path / "hub", CIFAR10, "JPEG"), tmp_path / "new" / "cache"
    direct = load_cifar10(folder)
    filled = load_cifar10(folder, cache=cache)
    files = sorted(cache.iterdir())
    assert [file.suffix for file in files] == [".npz", ".npz"]

    def decode(*_: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(_parquet, "_decode", decode)
        kept = load_cifar10(folder, cache=str(cache))
    for pair in (filled, kept):
        assert [s.fingerprint() for s in pair] == [s.fingerprint() for s in direct]
        assert [s.source for s in pair] == [s.source for s in direct]

    for file in files:
        file.write_bytes(file.read_bytes()[:-100])
    assert load_cifar10(folder, cache=cache)[0].fingerprint() == direct[0].fingerprint()
    assert sorted(cache.iterdir()) == files

    write_hub(folder, make_cifar(10, n=4), "JPEG")  # other data under the old names
    assert len(load_cifar10(folder, cache=cache)[0]) == 20


def test_a_failed_write_leaves_nothing_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    folder, cache = write_hub(tmp_path / "hub", CIFAR10), tmp_path / "cache"
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        load_cifar10(folder, cache=cache)
    assert not list(cache.iterdir())


# Bad input: one sentence with the file, what was expected, and what to do.


def refused(folder: Path, *words: str, load: Callable[..., object] = load_cifar10) -> None:
    with pytest.raises(ValueError) as caught:
        load(folder)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.endswith(".")
    assert "\n" not in message
    assert any(word in message for word in ("get ", "name the folder"))


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere", "does not exist")
    refused(tmp_path, str(tmp_path), "train-*.parquet", "cifar-10-python.tar.gz")
    (tmp_path / "train").mkdir()  # a folder of that name is no batch of CIFAR-100
    refused(tmp_path, "cifar-100-python.tar.gz", load=load_cifar100)


@pytest.mark.parametrize("kind", ["python", "binary"])
def test_a_missing_batch(kind: str, tmp_path: Path) -> None:
    made = python_files(CIFAR10, 10) if kind == "python" else binary_files(CIFAR10, 10)
    lost = sorted(made)[2]
    del made[lost]
    refused(write_folder(tmp_path / "a", made), f"lacks {lost},")
    refused(write_tar(tmp_path / "b" / "x.tar.gz", made), f"lacks {lost},")


@pytest.mark.parametrize("content", [b"", b"hello", bytes(3000)])
def test_foreign_and_truncated_official_files(content: bytes, tmp_path: Path) -> None:
    made = python_files(CIFAR10, 10)
    write_folder(tmp_path / "python", made | {"data_batch_3": content or made["test_batch"][:99]})
    refused(tmp_path / "python", "data_batch_3", "truncated")
    made = binary_files(CIFAR10, 10)
    write_folder(tmp_path / "binary", made | {"data_batch_3.bin": content})
    refused(tmp_path / "binary", "data_batch_3.bin", "3073" if content else "no image")


def test_an_empty_pickle(tmp_path: Path) -> None:
    write_folder(tmp_path, python_files(CIFAR10, 10) | {"test_batch": b""})
    refused(tmp_path, "test_batch", "truncated")


@pytest.mark.parametrize("cut", [1, 10, 1000, -1])
def test_truncated_archives(cut: int, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "cifar-10-python.tar.gz", python_files(CIFAR10, 10))
    path.write_bytes(path.read_bytes()[:cut])  # at -1 only the check is cut, after the last file
    refused(tmp_path, "cifar-10-python.tar.gz", "no readable tar archive")


def test_mislabeled_files(tmp_path: Path) -> None:
    wrong = CIFAR10 | {"data_batch_2": (CIFAR10["data_batch_2"][0], [0, 10, 1])}
    words = ("label 10", "0 to 9")
    refused(write_folder(tmp_path / "p", python_files(wrong, 10)), "data_batch_2", *words)
    refused(write_folder(tmp_path / "b", binary_files(wrong, 10)), "data_batch_2.bin", *words)
    refused(write_hub(tmp_path / "h", wrong), "train-00000-of-00001.parquet", *words)
    short = CIFAR10 | {"data_batch_2": (CIFAR10["data_batch_2"][0], [0, 1])}
    refused(write_folder(tmp_path / "s", python_files(short, 10)), "3 images and 2 labels")


def test_the_other_data_set(tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "hub", CIFAR100, label="fine_label")
    refused(hub, "'fine_label'", "'label'")
    ten = write_folder(tmp_path / "ten", python_files(CIFAR10, 10))
    refused(ten, "holds no CIFAR-100", load=load_cifar100)
    renamed = {"train": CIFAR10["data_batch_1"], "test": CIFAR10["test_batch"]}
    mixed = write_folder(tmp_path / "mixed", python_files(renamed, 10))
    refused(mixed, "'fine_labels'", load=load_cifar100)


def hub_with(folder: Path, encoded: list[bytes | None], labels: list[int | None]) -> Path:
    write_hub(folder, CIFAR10)
    write_parquet(folder / "test-00000-of-00001.parquet", encoded, labels)
    return folder


def test_foreign_parquet_files(tmp_path: Path) -> None:
    good = encode(CIFAR10["test_batch"][0][0])
    name = "test-00000-of-00001.parquet"
    gray, large = np.zeros((32, 32), np.uint8), np.zeros((3, 64, 64), np.uint8)
    for number, (encoded, labels, *words) in enumerate(
        [
            ([good, encode(gray)], [0, 1], "row 1", "RGB", "got L"),
            ([encode(large)], [0], "row 0", "32 × 32", "64 × 64"),
            ([good, b"GIF89a"], [0, 1], "row 1", "PNG or JPEG"),
            ([good[:-30]], [0], "row 0", "damaged"),
            ([good, None], [0, 1], "without image or label"),
            ([good, good], [0, None], "without image or label"),
            ([], [], "no image"),
        ]
    ):
        refused(hub_with(tmp_path / str(number), encoded, labels), name, *words)


def test_damaged_parquet_files(tmp_path: Path) -> None:
    path = write_hub(tmp_path, CIFAR10) / "test-00000-of-00001.parquet"
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:100], whole[:-1], whole[50:]):
        path.write_bytes(content)
        refused(tmp_path, path.name, "truncated or damaged")
    path.unlink()
    refused(tmp_path, "lacks test-*.parquet")


@pytest.mark.slow
@pytest.mark.skipif(
    "FLATMIN_CIFAR10" not in os.environ, reason="FLATMIN_CIFAR10 names no folder with CIFAR-10"
)
def test_the_real_data_set() -> None:
    train, test = load_cifar10(os.environ["FLATMIN_CIFAR10"])
    assert train.labels.bincount().tolist() == [5000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    # The constants of the report are those of the training images.
    mean = train.images.double().mean(dim=(0, 2, 3)) / 255
    torch.testing.assert_close(
        mean, torch.tensor(train.mean, dtype=torch.float64), rtol=0, atol=1e-3
    )
