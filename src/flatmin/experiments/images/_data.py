"""The images of the training items: CIFAR where a folder is given, else digits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F

from flatmin._streams import stream
from flatmin.compare.runs import Pair
from flatmin.data import Augment, ImageSet, load_cifar10, load_cifar100, load_digits


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Which images are trained on."""

    data: str | None = None
    """Folder of CIFAR-10; none for digits."""
    images: int | None = None
    """Training images, a fixed random choice; none for all."""
    test_images: int | None = None
    """Test images, the first ones; none for all."""
    pixels: int = 32
    """Height and width that CIFAR is averaged down to: 32, 16 or 8. Digits have 8, or 32 for the
    cnn."""
    augment: bool = True
    """Whether training images are cropped at random, and mirrored unless they are digits."""


def load(options: ImageOptions, model: str, *, hundred: str | None = None) -> Pair:
    """Training and test set, whose ``source`` says all that was done to them.

    Args:
        options: Which images.
        model: The network, since the cnn takes 32 pixels only.
        hundred: Folder of CIFAR-100, which then takes the place of CIFAR-10.

    Returns:
        The two sets.

    Raises:
        ValueError: If an option is out of range.
    """
    if options.pixels not in (32, 16, 8):
        raise ValueError(f"pixels must be 32, 16 or 8, got {options.pixels}.")
    train, test = _whole(options.data, hundred, 32 if model == "cnn" else 8)
    train = _few(train, options.images, shuffled=True)
    test = _few(test, options.test_images, shuffled=False)
    train, test = _smaller(train, options.pixels), _smaller(test, options.pixels)
    return replace(train, augment=augmentation(train) if options.augment else None), test


def augmentation(train: ImageSet) -> Augment:
    """Crop by an eighth, as the report does; a mirrored digit is none."""
    return Augment(train.images.shape[-1] // 8, flip=not train.source.startswith("digits"))


def with_wrong_labels(train: ImageSet, share: float, seed: int = 0) -> ImageSet:
    """Give a share of the images a label drawn evenly from the other classes."""
    if not 0.0 <= share < 1.0:
        raise ValueError(f"noise must lie in [0, 1), got {share}.")
    if not share:
        return train
    generator = stream("wrong labels", seed)  # no other choice of images may know these
    wrong = torch.randperm(len(train), generator=generator)[: round(share * len(train))]
    shift = torch.randint(1, len(train.classes), (len(wrong),), generator=generator)
    labels = train.labels.clone()
    labels[wrong] = (labels[wrong] + shift) % len(train.classes)
    return replace(train, labels=labels, source=f"{train.source}, {share:.0%} of labels wrong")


@cache
def _whole(cifar10: str | None, cifar100: str | None, digits_size: int) -> Pair:
    if cifar100 is not None:
        return load_cifar100(cifar100)
    if cifar10 is not None:
        return load_cifar10(cifar10)
    return load_digits(size=digits_size)


def _few(images: ImageSet, count: int | None, *, shuffled: bool) -> ImageSet:
    if count is None or count >= len(images):
        return images
    if count < 1:
        raise ValueError(f"images and test_images must be at least 1, got {count}.")
    order = torch.arange(len(images))
    if shuffled:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    part = images.subset(order[:count])
    return replace(part, source=f"{part.source}, {count:,} of {len(images):,} images")


def _smaller(images: ImageSet, pixels: int) -> ImageSet:
    factor = images.images.shape[-1] // pixels
    if factor <= 1 or images.source.startswith("digits"):
        return images
    pooled = F.avg_pool2d(images.images.float(), factor).round().to(torch.uint8)
    return replace(
        images, images=pooled, source=f"{images.source}, averaged to {pixels} × {pixels} pixels"
    )
