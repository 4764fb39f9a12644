"""CIFAR-10 and CIFAR-100 from a folder: the hub's parquet files or the official archives."""

from pathlib import Path

import numpy as np
import torch

from flatmin.data._archive import parse_binary, parse_pickle, read_files
from flatmin.data._download import fetch, require
from flatmin.data._kind import CIFAR10, CIFAR100, SITE, Kind
from flatmin.data._parquet import check_shards, read_shard
from flatmin.data._part import Part
from flatmin.data.augment import Augment
from flatmin.data.image_set import ImageSet

_OFFICIAL = f"{SITE}/cifar.html"
_SIZES = {"train": 50_000, "test": 10_000}


def load_cifar10(
    folder: str | Path, *, cache: str | Path | None = None, download: bool = False
) -> tuple[ImageSet, ImageSet]:
    """CIFAR-10 in whichever form a folder holds it; nothing is unpacked.

    The forms, in the order they are looked for, in the folder and then in its subfolders: parquet
    files ``train-*.parquet`` and ``test-*.parquet`` as on the Hugging Face hub; the batches of the
    official python or binary archive; these archives themselves as ``.tar.gz``.

    Args:
        folder: The folder, or the archive itself. Read, and written only by a download.
        cache: A folder in which the decoded images of parquet files are kept (184 MB), which makes
            the next call load in a fraction of a second instead of five; by default nothing is.
        download: Whether to fetch the official archive (170 MB) into the folder if that holds no
            CIFAR-10. It is checked by its SHA-256, and a download that broke off goes on where it
            stopped. Otherwise nothing is ever downloaded.

    Returns:
        Training and test set, normalized by the constants of the report. ``source`` says whether
        the images went through JPEG, and whether some are missing.

    Raises:
        ImportError: If parquet files are read without pyarrow and Pillow.
        ValueError: If nothing is found, or a file is empty, damaged, mislabeled or foreign.
        DownloadError: If the download broke off or brought something else.

    Example:
        >>> import tempfile
        >>> cat = bytes([3]) + bytes(3 * 32 * 32)  # a record: the label, then a black image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        ...         written = Path(folder, f"{name}.bin").write_bytes(cat)
        ...     train, test = load_cifar10(folder)
        >>> len(train), train.classes[train.labels[0]], train.source
        (5, 'cat', 'CIFAR-10 (5 of 50,000 train images)')

    Source:
        Krizhevsky 2009, Learning multiple layers of features from tiny images.
    """
    return _load(Path(folder), CIFAR10, cache, download)


def load_cifar100(
    folder: str | Path, *, cache: str | Path | None = None, download: bool = False
) -> tuple[ImageSet, ImageSet]:
    """CIFAR-100 with its hundred fine classes; otherwise as :func:`load_cifar10`.

    Args:
        folder: The folder, or the archive itself. Read, and written only by a download.
        cache: A folder in which the decoded images of parquet files are kept.
        download: Whether to fetch the official archive (169 MB), if there is no CIFAR-100.

    Returns:
        Training and test set, normalized by the usual constants of the training set.

    Raises:
        ImportError: If parquet files are read without pyarrow and Pillow.
        ValueError: If nothing is found, or a file is empty, damaged, mislabeled or foreign.
        DownloadError: If the download broke off or brought something else.

    Example:
        >>> import tempfile
        >>> bear = bytes([8, 3]) + bytes(3 * 32 * 32)  # coarse label, fine label, black image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("train.bin", "test.bin"):
        ...         written = Path(folder, name).write_bytes(bear)
        ...     train, test = load_cifar100(folder)
        >>> test.classes[test.labels[0]], test.source
        ('bear', 'CIFAR-100 (1 of 10,000 test images)')

    Source:
        Krizhevsky 2009, Learning multiple layers of features from tiny images.
    """
    return _load(Path(folder), CIFAR100, cache, download)


def _load(
    root: Path, kind: Kind, cache: str | Path | None, download: bool
) -> tuple[ImageSet, ImageSet]:
    place = _find(root, kind)
    if download and (place is None or place.name == kind.official.name):
        place = fetch(kind.official, root if place is None else place.parent)
    if not root.exists():
        raise ValueError(f"{root} does not exist; name the folder that holds {kind.name}.")
    if place is None:
        raise ValueError(
            f"{root} holds no {kind.name}: expected train-*.parquet and test-*.parquet, the files "
            f"of an official archive, or {' or '.join(kind.archives)}; get one from {_OFFICIAL}, "
            "or ask for a download."
        )
    if _parquets(place):
        return _read_parquets(place, kind, None if cache is None else Path(cache))
    return _read_official(place, kind)


def _find(root: Path, kind: Kind) -> Path | None:
    """The archive or folder that holds the data set, at ``root`` or one level below."""
    if root.suffix == ".parquet":
        root = root.parent
    if root.is_file():
        return root
    if not root.is_dir():
        return None
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    names = kind.train_files + kind.test_files
    files = (*names, *(f"{name}.bin" for name in names))
    for folder in folders:
        if _parquets(folder) or any((folder / name).is_file() for name in files):
            return folder
    archives = (folder / archive for folder in folders for archive in kind.archives)
    return next((archive for archive in archives if archive.is_file()), None)


def _parquets(folder: Path) -> list[Path]:
    return [file for split in _SIZES for file in _shards(folder, split)]


def _shards(folder: Path, split: str) -> list[Path]:
    """Files only: a pipe of that name would never end, and a folder is none."""
    return sorted(file for file in folder.glob(f"{split}-*.parquet") if file.is_file())


def _read_parquets(folder: Path, kind: Kind, cache: Path | None) -> tuple[ImageSet, ImageSet]:
    """The hub's files, which may come in several parts."""
    train, test = (_shards(folder, split) for split in _SIZES)
    if not (train and test):
        raise ValueError(
            f"{folder} lacks {'test' if train else 'train'}-*.parquet: {kind.name} needs training "
            "and test files; get the missing ones."
        )
    check_shards(train)
    check_shards(test)

    def parts(files: list[Path]) -> dict[str, Part]:
        return {str(file): read_shard(file, kind.parquet_label, cache) for file in files}

    return _image_set(kind, "train", parts(train)), _image_set(kind, "test", parts(test))


def _read_official(place: Path, kind: Kind) -> tuple[ImageSet, ImageSet]:
    """The files of the python or the binary archive, in a folder or still in the archive."""
    names = kind.train_files + kind.test_files
    for archive in (kind.official, kind.binary):
        if place.is_file() and place.stat().st_size == archive.size:
            require(archive, place)
    found = read_files(place, {*names, *(f"{name}.bin" for name in names)})
    suffix = "" if any(name in found for name in names) else ".bin"
    missing = [name + suffix for name in names if name + suffix not in found]
    if missing:
        raise ValueError(
            f"{place} lacks {', '.join(missing)}, which {kind.name} needs: it is incomplete or "
            f"foreign; get the official archive from {_OFFICIAL}."
        )

    def parse(content: bytes, name: str) -> Part:
        if suffix:
            return parse_binary(content, name, kind.label_bytes)
        return parse_pickle(content, name, kind.pickle_label)

    def parts(names: tuple[str, ...]) -> dict[str, Part]:
        files = {str(place / f"{name}{suffix}"): found[f"{name}{suffix}"] for name in names}
        return {name: parse(content, name) for name, content in files.items()}

    return (
        _image_set(kind, "train", parts(kind.train_files)),
        _image_set(kind, "test", parts(kind.test_files)),
    )


def _image_set(kind: Kind, split: str, parts: dict[str, Part]) -> ImageSet:
    """Check the parts of one split, by file name, and put them together."""
    for name, part in parts.items():
        if not len(part.labels):
            raise ValueError(f"{name} holds no image; get it again.")
        worst = part.labels[(part.labels < 0) | (part.labels >= len(kind.classes))]
        if len(worst):
            raise ValueError(
                f"{name} holds the label {worst[0]}, expected 0 to {len(kind.classes) - 1}: it is "
                f"damaged or not {kind.name}; get it again."
            )
    images = np.concatenate([part.images for part in parts.values()])
    labels = np.concatenate([part.labels for part in parts.values()])
    notes = []
    if any(part.lossy for part in parts.values()):
        notes.append("JPEG-recompressed copy")
    if len(labels) != _SIZES[split]:
        notes.append(f"{len(labels):,} of {_SIZES[split]:,} {split} images")
    return ImageSet(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        classes=kind.classes,
        source=f"{kind.name} ({'; '.join(notes)})" if notes else kind.name,
        mean=kind.mean,
        std=kind.std,
        augment=Augment() if split == "train" else None,
    )
