"""Small CIFAR files as the official archives and the hub have them."""

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

NAMES10 = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
NAMES100 = ("train", "test")

Batch = tuple[np.ndarray, list[int]]


def make_batch(n: int, classes: int, seed: int) -> Batch:
    """Smooth random images (that JPEG can hold) [n, 3, 32, 32] and labels."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (n, 3, 4, 4), dtype=np.uint8)
    return coarse.repeat(8, axis=2).repeat(8, axis=3), random.integers(0, classes, n).tolist()


def make_cifar(classes: int, n: int = 3) -> dict[str, Batch]:
    """A batch for each official file."""
    names = NAMES10 if classes == 10 else NAMES100
    return {name: make_batch(n, classes, seed) for seed, name in enumerate(names)}


def joined(batches: dict[str, Batch]) -> dict[str, Batch]:
    """Training and test part."""
    test = "test_batch" if "test_batch" in batches else "test"
    train = [batch for name, batch in batches.items() if name != test]
    labels = [label for _, part in train for label in part]
    return {"train": (np.concatenate([x for x, _ in train]), labels), "test": batches[test]}


class Python2Pickler(pickle._Pickler):
    """Writes strings as Python 2 did, which wrote the official files."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 - as in the class it extends

    def save_string(self, value: bytes | str) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def python2_pickle(value: Any) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def batch_dict(batch: Batch, classes: int) -> dict[str, Any]:
    images, labels = batch
    fine = {"labels": labels}
    if classes == 100:
        fine = {"fine_labels": labels, "coarse_labels": [label // 5 for label in labels]}
    return {
        "batch_label": "training batch 1 of 5",
        "data": images.reshape(len(images), -1),
        "filenames": [f"image_{k}.png" for k in range(len(images))],
        **fine,
    }


def python_files(batches: dict[str, Batch], classes: int) -> dict[str, bytes]:
    return {name: python2_pickle(batch_dict(batch, classes)) for name, batch in batches.items()}


def binary_files(batches: dict[str, Batch], classes: int) -> dict[str, bytes]:
    files = {}
    for name, (images, labels) in batches.items():
        records = [
            bytes([label // 5, label] if classes == 100 else [label]) + image.tobytes()
            for image, label in zip(images, labels, strict=True)
        ]
        files[f"{name}.bin"] = b"".join(records)
    return files


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_tar(path: Path, files: dict[str, bytes], folder: str = "cifar-10-batches-py") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def encode(image: np.ndarray, form: str = "PNG") -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    pixels = image.transpose(1, 2, 0) if image.ndim == 3 else image
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def write_parquet(
    path: Path,
    encoded: list[bytes | None],
    labels: list[int | None],
    *,
    image: str = "img",
    label: str = "label",
) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": data, "path": None} for data in encoded]
    columns = {image: pa.array(rows, kind), label: pa.array(labels, pa.int64())}
    pq.write_table(pa.table(columns), path)
    return path


def write_hub(
    folder: Path, batches: dict[str, Batch], form: str = "PNG", *, label: str = "label"
) -> Path:
    for split, (images, labels) in joined(batches).items():
        encoded = [encode(image, form) for image in images]
        write_parquet(folder / f"{split}-00000-of-00001.parquet", encoded, labels, label=label)
    return folder
