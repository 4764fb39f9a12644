"""The part of a parameter or buffer that moves with a group of units."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Slot:
    r"""One axis of one named tensor, and what a factor τ per unit does to it.

    .. math:: t' = (t + a)\,\tau^k - a

    Args:
        name: Name of the parameter or buffer in the model.
        dim: Axis that the units run along.
        power: The exponent k: 1 where the units are produced, -1 where they are read, 2 for a
            running variance.
        block: Consecutive entries that belong to one unit; a channel of h × w pixels that was
            flattened owns h·w columns.
        groups: Groups of a convolution. Above one, the units are its *input* channels, and ``dim``
            holds only those of one group.
        offset: The constant a: ``eps`` for a running variance, which enters as ``var + eps``.
    """

    name: str
    dim: int
    power: int
    block: int = 1
    groups: int = 1
    offset: float = 0.0

    def scaled(self, tensor: Tensor, factors: Tensor) -> Tensor:
        """Return ``tensor`` after factors of shape ``(units,)``."""
        powers = self._spread(factors.to(tensor.dtype) ** self.power, tensor.shape)
        return (tensor + self.offset) * powers - self.offset if self.offset else tensor * powers

    def reordered(self, tensor: Tensor, order: Tensor) -> Tensor:
        """Return ``tensor`` with its units in a new order, of shape ``(units,)``."""
        inside = torch.arange(self.block, device=order.device)
        return tensor.index_select(self.dim, (order[:, None] * self.block + inside).flatten())

    def totals(self, tensor: Tensor) -> Tensor:
        """Return the sum of the entries of each unit, of shape ``(units,)``."""
        if self.groups > 1:
            by_group = tensor.reshape(self.groups, -1, tensor.shape[1], tensor[0, 0].numel())
            sums = by_group.sum((1, 3)).flatten()
        else:
            sums = tensor.movedim(self.dim, 0).reshape(tensor.shape[self.dim], -1).sum(1)
        return sums.view(-1, self.block).sum(1)

    def _spread(self, values: Tensor, shape: torch.Size) -> Tensor:
        values = values.repeat_interleave(self.block)
        if self.groups > 1:
            rows = shape[0] // self.groups
            values = values.view(self.groups, -1).repeat_interleave(rows, 0)
            return values.view(*values.shape, *[1] * (len(shape) - 2))
        return values.view([-1 if axis == self.dim else 1 for axis in range(len(shape))])
