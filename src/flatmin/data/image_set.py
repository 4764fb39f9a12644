"""Labeled images held as one tensor."""

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flatmin.data.augment import Augment, normalize


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Labeled images of one size, with what is needed to normalize and to cite them.

    Attributes:
        images: Raw pixels, uint8 of shape [N, C, H, W].
        labels: Class of each image, int64 of shape [N], from 0 to the number of classes − 1.
        classes: Name of each class.
        source: Where the images come from, in words that may stand under a result.
        mean: Mean of each channel, in units where white is 1. A test set carries the constants of
            its training set.
        std: Standard deviation of each channel, in the same units.
        augment: Crops and flips that ``Batches`` makes where it varies images; None for none.
            ``train`` has its own, in its configuration.

    Raises:
        TypeError: If the images are not uint8 or the labels not int64.
        ValueError: If the shapes do not fit together, the set is empty, a label has no class, or
            a standard deviation is not positive.

    Example:
        >>> pair = ImageSet(
        ...     images=torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
        ...     labels=torch.tensor([0, 1]),
        ...     classes=("zero", "one"),
        ...     source="drawn by hand",
        ...     mean=(0.5,),
        ...     std=(0.25,),
        ... )
        >>> len(pair), len(pair.subset(torch.tensor([1])))
        (2, 1)
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    source: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.labels.dtype != torch.int64:
            raise TypeError(
                "images must be uint8 and labels int64, "
                f"got {self.images.dtype} and {self.labels.dtype}."
            )
        if self.images.ndim != 4 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                "images must have shape [N, C, H, W] and labels [N], "
                f"got {list(self.images.shape)} and {list(self.labels.shape)}."
            )
        if not len(self):
            raise ValueError("An image set must hold at least one image, got none.")
        lowest, highest = (int(bound) for bound in self.labels.aminmax())
        if lowest < 0 or highest >= len(self.classes):
            raise ValueError(
                f"Labels must lie between 0 and {len(self.classes) - 1}, one for each class, "
                f"got {lowest} to {highest}."
            )
        channels = self.images.shape[1]
        if not len(self.mean) == len(self.std) == channels or not all(s > 0 for s in self.std):
            raise ValueError(
                f"mean and std need one value for each of {channels} channels, std above 0, "
                f"got {self.mean} and {self.std}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where the images and labels live."""
        return self.images.device

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set on another device."""
        return dataclasses.replace(
            self, images=self.images.to(device), labels=self.labels.to(device)
        )

    def subset(self, indices: Tensor) -> "ImageSet":
        """The images at ``indices`` (int64 of shape [M]), in that order."""
        indices = indices.to(self.device)
        return dataclasses.replace(
            self,
            images=self.images.index_select(0, indices),
            labels=self.labels.index_select(0, indices),
        )

    def fingerprint(self) -> str:
        """SHA-256 of pixels and labels: the same for the same images, whatever file held them."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        digest.update(self.images.cpu().contiguous().numpy().data)
        digest.update(self.labels.cpu().contiguous().numpy().astype("<i8").data)
        return digest.hexdigest()

    def settings(self) -> dict[str, Any]:
        """Crops and flips, as plain values."""
        varied = self.augment or Augment(0, flip=False)
        return {"crop_padding": varied.crop_padding, "flip": varied.flip}

    def choose(self, count: int, *, generator: torch.Generator) -> Tensor | None:
        """Draw crops and flips for ``count`` images, if there are any."""
        if self.augment is None or not (self.augment.crop_padding or self.augment.flip):
            return None
        return self.augment.choose(count, generator=generator)

    def batch(
        self, indices: Tensor, choices: Tensor | None, *, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Normalized images [B, C, H, W] in a floating type, and labels [B]."""
        images = self.images.index_select(0, indices)
        if self.augment is not None and choices is not None:
            images = self.augment(images, choices)
        labels = self.labels.index_select(0, indices)
        return normalize(images, self.mean, self.std, dtype=dtype), labels


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels, where white is 1.

    Args:
        images: Raw pixels, uint8 of shape [N, C, H, W].

    Returns:
        The means and the (population) standard deviations, one for each channel.

    Raises:
        TypeError: If the images are not uint8.

    Example:
        >>> half = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)
        >>> channel_statistics(half)
        ((0.5,), (0.5,))
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}.")
    # Integer sums are exact, however many pixels there are.
    count = images[:, 0].numel()
    total = images.sum(dim=(0, 2, 3), dtype=torch.int64).tolist()
    squares = images.int().square().sum(dim=(0, 2, 3), dtype=torch.int64).tolist()
    mean = tuple(s / count / 255 for s in total)
    variance = ((count * q - s * s) / count**2 for s, q in zip(total, squares, strict=True))
    return mean, tuple(math.sqrt(v) / 255 for v in variance)
