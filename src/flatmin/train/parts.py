"""What of the data is trained on, held out and evaluated."""

from __future__ import annotations

from typing import TypeVar, cast

import torch

from flatmin.data import DataSet, ImageSet
from flatmin.train.config import TrainConfig
from flatmin.train.distributed import Team

Set = TypeVar("Set", bound=DataSet)


def hold_out(train_set: Set, count: int) -> tuple[Set, Set | None]:
    """Split a training set, always in the same way, so that runs of any seed can be compared.

    Args:
        train_set: All training examples.
        count: Examples that are held out.

    Returns:
        The rest, in its old order, and the held-out examples; None for none.

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
            f"validation must be below the {len(train_set)} training examples, got {count}."
        )
    order = _fixed_order(len(train_set))
    rest, held_out = order[count:].sort().values, order[:count]
    return cast(Set, train_set.subset(rest)), cast(Set, train_set.subset(held_out))


def cut(config: TrainConfig, data: tuple[DataSet, DataSet], team: Team) -> dict[str, DataSet]:
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
    _check_images(config, whole, test)
    batches, validation = hold_out(whole, config.validation)
    smallest = min(config.batch_size, len(batches))
    if not config.drop_last:
        smallest = len(batches) % config.batch_size or smallest
    if smallest < team.size * config.accumulation:
        raise ValueError(
            f"The smallest batch of an epoch has {smallest} examples, too few for {team.size} "
            f"processes and {config.accumulation} pieces each; set drop_last, or another "
            "batch_size."
        )
    parts: dict[str, DataSet] = {"batches": batches}
    if config.evaluate_train:
        order = _fixed_order(len(batches))[: config.evaluate_train]
        parts["train"] = batches if len(order) == len(batches) else batches.subset(order)
    if validation is not None:
        parts["validation"] = validation
    parts["test"] = test
    return {name: part.to(team.device) for name, part in parts.items()}


def _check_images(config: TrainConfig, whole: DataSet, test: DataSet) -> None:
    """Refuse images that differ, or that the network does not take."""
    kinds = [type(part).__name__ for part in (whole, test)]
    if not isinstance(whole, ImageSet) or not isinstance(test, ImageSet):
        if ImageSet in (type(whole), type(test)):
            raise ValueError(
                f"Training and test set must both be image sets, or neither, got {kinds[0]} and "
                f"{kinds[1]}."
            )
        if config.model != "own":
            raise ValueError(
                f"The network {config.model} takes image sets, and the data are a {kinds[0]}; hand "
                'over a network of your own, by model= and config.model="own".'
            )
        return
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


def _fixed_order(count: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))
