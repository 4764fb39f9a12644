"""What was a field of the configuration for one release more: crops and flips."""

from __future__ import annotations

import warnings
from dataclasses import replace

from flatmin.data import Augment, DataSet, ImageSet
from flatmin.train.config import TrainConfig

MOVED = ("crop_padding", "flip")


def moved(config: TrainConfig, train_set: DataSet) -> tuple[TrainConfig, DataSet]:
    """Give crops and flips of a configuration to the images, with a warning.

    Whoever sets one of the two gets what the other was by default, so that old numbers come again.

    Raises:
        ValueError: If there are no images, or images with crops and flips of their own.
    """
    given = {name: getattr(config, name) for name in MOVED if getattr(config, name) is not None}
    if not given:
        return config, train_set
    said = " and ".join(given)
    if not isinstance(train_set, ImageSet):
        raise ValueError(
            f"{said} of the configuration are for images, and the training set is a "
            f"{type(train_set).__name__}; leave them out, and vary examples in the data set."
        )
    augment = Augment(**given)
    usual = train_set.augment
    if usual not in (None, augment) and usual != Augment():
        raise ValueError(
            f"the configuration sets {said}, and the training set has crops and flips of its own, "
            f"{usual}; leave {said} out of the configuration."
        )
    warnings.warn(
        f"{said} of TrainConfig moved to the image set and will be removed: write "
        f"dataclasses.replace(train_set, augment={augment}).",
        DeprecationWarning,
        stacklevel=4,
    )
    return replace(config, crop_padding=None, flip=None), replace(train_set, augment=augment)
