"""Images of one's own: a folder for each class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from flatmin.data._picture import Look, PictureError, look, pixels
from flatmin.data.augment import Augment
from flatmin.data.image_set import ImageSet, channel_statistics


def load_image_folder(folder: str | Path) -> tuple[ImageSet, ImageSet]:
    """Images in ``train/<class>/`` and ``test/<class>/``, PNG or JPEG, all of one size.

    Args:
        folder: The folder that holds ``train`` and ``test``. Read, never written. Files whose
            names start with a dot are passed over.

    Returns:
        Training and test set, normalized by the constants of the training set; the classes are the
        names of the folders in alphabetical order. Gray images have one channel, unless one of
        them is in color. Pixels are those that a viewer shows, turned as the file says.
        Training images are cropped and flipped as ``Augment()`` says.

    Raises:
        ImportError: If Pillow is not installed.
        ValueError: If a folder is missing or empty, the classes of both sets differ, or a file is
            no image, is damaged, has another size than the first, or has pixels that 8 bits a
            channel cannot tell: 16 bits, transparency, several pictures.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        ...         path = Path(folder, name)
        ...         path.mkdir(parents=True)
        ...         image = Image.new("RGB", (8, 8), "white" if "cat" in name else "black")
        ...         image.save(path / "1.png")
        ...     train, test = load_image_folder(folder)
        >>> train.classes, list(train.images.shape), train.mean
        (('cat', 'dog'), [2, 3, 8, 8], (0.5, 0.5, 0.5))
    """
    try:
        import PIL  # noqa: F401 - fail here, before any work
    except ImportError as error:
        raise ImportError(
            'Reading images needs Pillow: pip install "flatmin[experiments]".'
        ) from error
    root = Path(folder)
    files = {split: _files(root / split) for split in ("train", "test")}
    classes, others = (tuple(found) for found in files.values())
    if classes != others:
        differing = sorted(set(classes) ^ set(others))
        raise ValueError(
            f"{root}/train and {root}/test must hold the same classes, and {', '.join(differing)} "
            "is in one of them only; add the missing folder."
        )
    every = [path for found in files.values() for paths in found.values() for path in paths]
    images = _stack(every)
    labels = torch.tensor(
        [classes.index(name) for found in files.values() for name in found for _ in found[name]]
    )
    count = sum(map(len, files["train"].values()))
    mean, std = channel_statistics(images[:count])
    if not all(std):
        raise ValueError(f"{root}/train holds images of a single brightness; check its files.")
    whole = ImageSet(images, labels, classes, f"images in {root.name}", mean, std)
    rows = torch.arange(len(labels))
    train = replace(whole.subset(rows[:count]), augment=Augment())
    return train, whole.subset(rows[count:])


def _files(folder: Path) -> dict[str, list[Path]]:
    """The files of each class, in alphabetical order."""
    if not folder.is_dir():
        raise ValueError(
            f"{folder} does not exist; put images into {folder}/<class>/, a folder for each class."
        )
    found = {
        path.name: sorted(_visible(path)) for path in sorted(_visible(folder)) if path.is_dir()
    }
    empty = [name for name, paths in found.items() if not paths]
    if empty or not found:
        where = folder / empty[0] if empty else folder
        raise ValueError(f"{where} holds no images; add some, or remove it.")
    return found


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _stack(paths: list[Path]) -> Tensor:
    """All images as one tensor, uint8 [N, C, H, W]."""
    first = _look(paths[0])
    gray = first.gray
    for path in paths[1:]:  # all sizes are compared before anything is decoded
        other = _look(path)
        gray = gray and other.gray
        _require_size(path, (other.height, other.width), paths[0], first)
    # Nothing that is decoded next is larger than this.
    shape = (len(paths), 1 if gray else 3, first.height, first.width)
    try:
        images = np.empty(shape, np.uint8)
    except MemoryError as error:
        raise ValueError(
            f"{len(paths):,} images of {first.width} × {first.height} pixels need "
            f"{math.prod(shape):,} bytes of memory; make them smaller, or fewer."
        ) from error
    for row, path in zip(images, paths, strict=True):
        with _opened(path) as file:
            found = pixels(file)
        _require_size(path, found.shape[:2], paths[0], first)
        row[:] = found.transpose(2, 0, 1)  # a gray one among others in color fills all channels
    return torch.from_numpy(images)


def _look(path: Path) -> Look:
    with _opened(path) as file:
        return look(file)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file, and its name in front of what is wrong with it."""
    if not path.is_file():  # a pipe would never end
        kind = "a folder" if path.is_dir() else "no file"
        raise ValueError(f"{path} is {kind}, expected a PNG or JPEG image; move it elsewhere.")
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}).") from error
    except PictureError as error:
        raise ValueError(f"{path} {error}.") from error


def _require_size(path: Path, size: tuple[int, ...], first_path: Path, first: Look) -> None:
    if size != (first.height, first.width):
        height, width = size
        raise ValueError(
            f"{path} has {width} × {height} pixels, and {first_path} has {first.width} × "
            f"{first.height}; bring all images to one size."
        )
