"""Batches cut, augmented and normalized on the device where the images live."""

from collections.abc import Iterator

import torch
from torch import Tensor

from flatmin.data.augment import Augment, normalize
from flatmin.data.image_set import ImageSet


class Batches:
    """Normalized batches of an image set; each iteration is one epoch.

    All random choices of an epoch (order, crops, flips) are drawn when it begins, so the generator
    advances equally however many batches are taken, and an epoch can be entered in the middle:
    with the generator in the state it had before the epoch, ``epoch(start=k)`` goes on with the
    same bits after ``k`` batches. Choices are drawn on the CPU: a seed means the same batches on
    every device.

    Args:
        image_set: The images, on the device where the batches are wanted. Read, never written.
        batch_size: Images in a batch; the last one may be smaller.
        generator: Source of randomness, on the CPU; needed to shuffle or augment.
        augment: What happens to the images before they are normalized; nothing by default.
        shuffle: Whether each epoch has its own order.
        drop_last: Whether to leave out a smaller last batch.
        dtype: Floating type of the images.

    Raises:
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
        image_set: ImageSet,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
        augment: Augment | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if batch_size < 1 or (drop_last and batch_size > len(image_set)):
            raise ValueError(
                f"batch_size must lie between 1 and the {len(image_set)} images, got {batch_size}."
            )
        if generator is None and (shuffle or augment is not None):
            raise ValueError(
                "Shuffled or augmented batches need a generator: pass "
                "generator=torch.Generator().manual_seed(0), or shuffle=False without augment."
            )
        if generator is not None and generator.device.type != "cpu":
            raise ValueError(
                "Batches draws on the CPU, so that a seed means the same batches on every device: "
                f"pass a torch.Generator() instead of one on {generator.device}."
            )
        self.image_set = image_set
        self.batch_size = batch_size
        self.generator = generator
        self.augment = augment
        self.shuffle = shuffle
        self.drop_last = drop_last
        self._mean = torch.tensor(image_set.mean, dtype=dtype, device=image_set.device)
        self._std = torch.tensor(image_set.std, dtype=dtype, device=image_set.device)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.image_set), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.epoch()

    def epoch(self, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw an epoch's choices now, and go through its batches from ``start`` on.

        Args:
            start: Number of batches to leave out at the beginning.

        Returns:
            An iterator over pairs of normalized images [B, C, H, W] and labels [B].

        Raises:
            ValueError: If there are fewer than ``start`` batches.
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start must lie between 0 and {len(self)} batches, got {start}.")
        count, device = len(self.image_set), self.image_set.device
        order = (
            torch.randperm(count, generator=self.generator) if self.shuffle else torch.arange(count)
        )
        choices = None
        if self.augment is not None and self.generator is not None:
            choices = self.augment.choose(count, generator=self.generator).to(device)
        return self._batches(range(start, len(self)), order.to(device), choices)

    def _batches(
        self, numbers: range, order: Tensor, choices: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for number in numbers:
            here = slice(number * self.batch_size, (number + 1) * self.batch_size)
            images = self.image_set.images.index_select(0, order[here])
            labels = self.image_set.labels.index_select(0, order[here])
            if self.augment is not None and choices is not None:
                images = self.augment(images, choices[here])
            yield normalize(images, self._mean, self._std, dtype=self._mean.dtype), labels
