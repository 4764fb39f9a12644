"""Images of one's own: a folder for each class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flatmin.data.image_set import ImageSet, channel_statistics


def load_image_folder(folder: str | Path) -> tuple[ImageSet, ImageSet]:
    """Images in ``train/<class>/`` and ``test/<class>/``, PNG or JPEG, all of one size.

    Args:
        folder: The folder that holds ``train`` and ``test``. Read, never written. Files whose
            names start with a dot are passed over.

    Returns:
        Training and test set, normalized by the constants of the training set; the classes are the
        names of the folders in alphabetical order. Gray images have one channel, unless one of
        them is in color.

    Raises:
        ImportError: If Pillow is not installed.
        ValueError: If a folder is missing or empty, the classes of both sets differ, or a file is
            no image or has another size than the first.

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
    return whole.subset(rows[:count]), whole.subset(rows[count:])


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
    gray = True
    rows: list[NDArray[np.uint8]] = []
    for path in paths:
        pixels, is_gray = _decode(path)
        if rows and pixels.shape != rows[0].shape:
            (height, width), (first_height, first_width) = pixels.shape[:2], rows[0].shape[:2]
            raise ValueError(
                f"{path} has {width} × {height} pixels, and {paths[0]} has {first_width} × "
                f"{first_height}; bring all images to one size."
            )
        gray = gray and is_gray
        rows.append(pixels)
    images = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)
    return (images[:, :1] if gray else images).contiguous()


def _decode(path: Path) -> tuple[NDArray[np.uint8], bool]:
    """Pixels uint8 [H, W, 3], and whether the image is gray."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            return np.asarray(image.convert("RGB")), image.mode in ("1", "L")
    except Exception as error:  # damaged images raise whatever the decoder stumbles over
        raise ValueError(
            f"{path} is no PNG or JPEG image, or is damaged ({error}); remove or replace it."
        ) from error
