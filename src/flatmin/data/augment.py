"""Random crops and flips of whole batches, and normalization."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Augment:
    """Random crop out of a padded image, and random horizontal flip.

    Choosing is apart from moving pixels, so that an epoch's choices can be drawn at once and any
    batch of it made again.

    Args:
        crop_padding: Black pixels added on each side before a window of the old size is cut out;
            0 for no crop.
        flip: Whether to mirror left and right with probability one half.

    Raises:
        ValueError: If the padding is negative.

    Example:
        >>> image = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
        >>> augment = Augment(crop_padding=1)
        >>> augment(image, torch.tensor([[1, 1, 0]])).tolist()  # the middle window: unchanged
        [[[[1, 2], [3, 4]]]]
        >>> augment(image, torch.tensor([[0, 1, 1]])).tolist()  # one row up, mirrored
        [[[[0, 0], [2, 1]]]]

    Source:
        Zagoruyko and Komodakis 2016, arXiv:1605.07146, section 3.
    """

    crop_padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise ValueError(f"crop_padding must be at least 0, got {self.crop_padding}.")

    def choose(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Draw what happens to each of ``count`` images.

        Args:
            count: Number of images.
            generator: Source of randomness; its device is that of the result.

        Returns:
            Integers [count, 3]. Top and left of the window in the padded image, and 1 where the
            window is mirrored.
        """
        windows = torch.randint(
            2 * self.crop_padding + 1, (count, 2), generator=generator, device=generator.device
        )
        flips = torch.randint(
            1 + self.flip, (count, 1), generator=generator, device=generator.device
        )
        return torch.cat((windows, flips), dim=1)

    def __call__(self, images: Tensor, choices: Tensor) -> Tensor:
        """Cut and mirror each image as chosen.

        Args:
            images: Pixels of any type, shape [N, C, H, W], not yet normalized: the padding is 0.
            choices: What :meth:`choose` drew, shape [N, 3], on the device of the images.

        Returns:
            New pixels of the same type and shape.
        """
        height, width = images.shape[-2:]
        top, left, flip = choices[:, :, None].unbind(1)
        row = torch.arange(height, device=images.device)
        column = torch.arange(width, device=images.device)
        rows = top + row
        columns = left + torch.where(flip.bool(), width - 1 - column, column)
        pad = self.crop_padding
        padded = F.pad(images, (pad, pad, pad, pad)).flatten(2)
        # One gather in the flattened image does crop and flip, and is fast on CPU and GPU alike.
        index = (rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]).flatten(1)
        return padded.gather(2, index[:, None, :].expand(-1, images.shape[1], -1)).view_as(images)


def normalize(
    images: Tensor,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    r"""Pixels to numbers around zero: (pixel / 255 − mean) / std, channel by channel.

    Args:
        images: Raw pixels, uint8 of shape [N, C, H, W]. Read, never written.
        mean: Mean of each channel, where white is 1.
        std: Standard deviation of each channel, where white is 1.
        dtype: Floating type of the result.

    Returns:
        Dimensionless numbers of the shape of ``images``; in float32 the same bits as torchvision's
        ``ToTensor`` and ``Normalize``.

    Raises:
        TypeError: If the images are not uint8.

    Example:
        >>> normalize(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8), (0.5,), (0.25,)).item()
        2.0

    Source:
        ``torchvision.transforms``, ``ToTensor`` and ``Normalize``.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"normalize takes raw uint8 pixels, got {images.dtype}.")
    mean = torch.as_tensor(mean, dtype=dtype, device=images.device).view(-1, 1, 1)
    std = torch.as_tensor(std, dtype=dtype, device=images.device).view(-1, 1, 1)
    return images.to(dtype).div_(255).sub_(mean).div_(std)
