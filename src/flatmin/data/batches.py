"""Batches of any data set, cut on the device where it lives."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from flatmin.data.augment import Augment
from flatmin.data.data_set import DataSet
from flatmin.data.image_set import ImageSet


class Batches:
    """Batches of a data set, such as normalized images; each iteration is one epoch.

    All random choices of an epoch (order, crops, flips) are drawn when it begins, so the generator
    advances equally however many batches are taken, and an epoch can be entered in the middle:
    with the generator in the state it had before the epoch, ``epoch(start=k)`` goes on with the
    same bits after ``k`` batches. Choices are drawn on the CPU: a seed means the same batches on
    every device.

    Args:
        data: The examples, on the device where the batches are wanted. Read, never written.
        batch_size: Examples in a batch; the last one may be smaller.
        generator: Source of randomness, on the CPU; needed to shuffle or augment.
        augment: Whether examples are varied as their set says; of an image set, also the crops and
            flips that take the place of its own.
        shuffle: Whether each epoch has its own order.
        drop_last: Whether to leave out a smaller last batch.
        dtype: Floating type of what is no integer.

    Raises:
        TypeError: If crops and flips are given for what is no image set.
        ValueError: If ``batch_size`` is below one or leaves no batch at all, or the generator is
            missing or not on the CPU.

    Example:
        >>> from flatmin.data import load_digits
        >>> train, _ = load_digits()
        >>> generator = torch.Generator().manual_seed(0)
        >>> batches = Batches(train, 128, generator=generator)
        >>> before = generator.get_state()
        >>> whole = list(batches)
        >>> generator = generator.set_state(before)
        >>> rest = list(batches.epoch(start=10))
        >>> len(whole), len(rest), torch.equal(whole[10][0], rest[0][0])
        (12, 2, True)

    Source:
        Jordan 2024, arXiv:2404.00498 (airbench): images stay on the device, augmented in batch.
    """

    def __init__(
        self,
        data: DataSet,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
        augment: Augment | bool | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if batch_size < 1 or (drop_last and batch_size > len(data)):
            what = "images" if isinstance(data, ImageSet) else "examples"
            raise ValueError(
                f"batch_size must lie between 1 and the {len(data)} {what}, got {batch_size}."
            )
        if generator is None and (shuffle or augment):
            raise ValueError(
                "Shuffled or augmented batches need a generator: pass "
                "generator=torch.Generator().manual_seed(0), or shuffle=False without augment."
            )
        if generator is not None and generator.device.type != "cpu":
            raise ValueError(
                "Batches draws on the CPU, so that a seed means the same batches on every device: "
                f"pass a torch.Generator() instead of one on {generator.device}."
            )
        if isinstance(augment, Augment):
            if not isinstance(data, ImageSet):
                raise TypeError(
                    f"Crops and flips are for images, got a {type(data).__name__}; pass "
                    "augment=True to vary its examples as it says."
                )
            data = dataclasses.replace(data, augment=augment)
        self.data: DataSet = data
        self.batch_size = batch_size
        self.generator = generator
        self.augment = augment
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.dtype = dtype

    def __len__(self) -> int:
        whole, rest = divmod(len(self.data), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        return self.epoch()

    def epoch(self, start: int = 0) -> Iterator[tuple[Any, Tensor]]:
        """Draw an epoch's choices now, and go through its batches from ``start`` on.

        Args:
            start: Number of batches to leave out at the beginning.

        Returns:
            An iterator over pairs of inputs and targets; of images, normalized ones [B, C, H, W]
            and labels [B].

        Raises:
            ValueError: If there are fewer than ``start`` batches.
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start must lie between 0 and {len(self)} batches, got {start}.")
        count, device = len(self.data), self.data.device
        order = (
            torch.randperm(count, generator=self.generator) if self.shuffle else torch.arange(count)
        )
        choices = None
        if self.augment and self.generator is not None:
            choices = self.data.choose(count, generator=self.generator)
        return self._batches(
            range(start, len(self)),
            order.to(device),
            choices.to(device) if choices is not None else None,
        )

    def _batches(
        self, numbers: range, order: Tensor, choices: Tensor | None
    ) -> Iterator[tuple[Any, Tensor]]:
        for number in numbers:
            here = slice(number * self.batch_size, (number + 1) * self.batch_size)
            chosen = choices[here] if choices is not None else None
            yield self.data.batch(order[here], chosen, dtype=self.dtype)
