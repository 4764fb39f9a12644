"""The handwritten digits that come with scikit-learn: images without any download."""

import torch

from flatmin.data.image_set import ImageSet, channel_statistics


def load_digits(
    *, size: int = 8, channels: int = 1, test_fraction: float = 0.2, seed: int = 0
) -> tuple[ImageSet, ImageSet]:
    """Handwritten digits of 8 × 8 pixels, split into a training and a test set.

    Args:
        size: Height and width in pixels; a multiple of 8. Each pixel becomes a square.
        channels: Copies of the one gray channel, so that networks for color images take them.
        test_fraction: Part of each class that goes into the test set.
        seed: Chooses the split. The same seed gives the same split.

    Returns:
        Training and test set, normalized by the constants of the training set. The digits must
        not be flipped: a mirrored digit is none.

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If the size is not a positive multiple of 8, there is no channel, or
            ``test_fraction`` does not lie between 0 and 1.

    Example:
        >>> train, test = load_digits()
        >>> len(train), len(test), list(train.images.shape[1:])
        (1437, 360, [1, 8, 8])

    Source:
        Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (UCI), the test part,
        as in ``sklearn.datasets.load_digits``.
    """
    if size < 8 or size % 8:
        raise ValueError(f"size must be a positive multiple of 8, got {size}.")
    if channels < 1:
        raise ValueError(f"channels must be at least 1, got {channels}.")
    if not 0.0 < test_fraction < 1.0:
        raise ValueError(f"test_fraction must lie between 0 and 1, got {test_fraction}.")
    try:
        from sklearn import datasets, model_selection
    except ImportError as error:
        raise ImportError(
            'The digits come with scikit-learn: pip install "flatmin[experiments]".'
        ) from error

    pixels, labels = datasets.load_digits(return_X_y=True)  # 1797 rows of 64 values from 0 to 16
    gray = torch.from_numpy(pixels).mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
    factor = size // 8
    images = gray.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    images = images.repeat(1, channels, 1, 1)
    split = model_selection.train_test_split(
        range(len(labels)), test_size=test_fraction, random_state=seed, stratify=labels
    )
    train, test = (torch.tensor(sorted(part)) for part in split)
    mean, std = channel_statistics(images[train])
    digits = ImageSet(
        images=images,
        labels=torch.from_numpy(labels).long(),
        classes=tuple("0123456789"),
        source="digits (scikit-learn)",
        mean=mean,
        std=std,
    )
    return digits.subset(train), digits.subset(test)
