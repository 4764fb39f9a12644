"""What of the data is trained on, held out and evaluated."""

from __future__ import annotations

import torch

from flatmin.data import ImageSet
from flatmin.train.config import TrainConfig
from flatmin.train.distributed import Team


def hold_out(train_set: ImageSet, count: int) -> tuple[ImageSet, ImageSet | None]:
    """Split a training set, always in the same way, so that runs of any seed can be compared.

    Args:
        train_set: All training images.
        count: Images that are held out.

    Returns:
        The rest, in its old order, and the held-out images; None for none.

    Raises:
        ValueError: If nothing would be left to train on.

    Example:
        >>> from flatmin.data import load_digits
        >>> rest, held_out = hold_out(load_digits()[0], 100)
        >>> len(rest), len(held_out)
        (1337, 100)
    """
    if not count:
        return train_set, None
    if count >= len(train_set):
        raise ValueError(
            f"validation must be below the {len(train_set)} training images, got {count}."
        )
    order = _fixed_order(len(train_set))
    return train_set.subset(order[count:].sort().values), train_set.subset(order[:count])


def cut(config: TrainConfig, data: tuple[ImageSet, ImageSet], team: Team) -> dict[str, ImageSet]:
    """Cut the data as configured, on the team's device.

    Args:
        config: Says how much is held out and evaluated.
        data: Training and test set.
        team: Has the device.

    Returns:
        ``batches`` (what is trained on) and what is evaluated: ``train``, ``validation``, ``test``.

    Raises:
        ValueError: If the parts do not fit together or do not suffice.
    """
    whole, test = data
    if whole.classes != test.classes or whole.images.shape[1:] != test.images.shape[1:]:
        raise ValueError(
            "Training and test set must have the same classes and image size, got "
            f"{len(whole.classes)} and {len(test.classes)} classes, {list(whole.images.shape[1:])} "
            f"and {list(test.images.shape[1:])}."
        )
    size = tuple(whole.images.shape[2:])
    if config.model == "cnn" and size != (32, 32):
        raise ValueError(
            f"The cnn takes images of 32 × 32 pixels, got {size[0]} × {size[1]}; load the digits "
            "with size=32, or choose a wrn."
        )
    batches, validation = hold_out(whole, config.validation)
    smallest = min(config.batch_size, len(batches))
    if not config.drop_last:
        smallest = len(batches) % config.batch_size or smallest
    if smallest < team.size * config.accumulation:
        raise ValueError(
            f"The smallest batch of an epoch has {smallest} images, too few for {team.size} "
            f"processes and {config.accumulation} pieces each; set drop_last, or another "
            "batch_size."
        )
    parts = {"batches": batches}
    if config.evaluate_train:
        order = _fixed_order(len(batches))[: config.evaluate_train]
        parts["train"] = batches if len(order) == len(batches) else batches.subset(order)
    if validation is not None:
        parts["validation"] = validation
    parts["test"] = test
    return {name: part.to(team.device) for name, part in parts.items()}


def _fixed_order(count: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))
