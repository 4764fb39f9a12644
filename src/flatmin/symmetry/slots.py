"""The part of a parameter or buffer that moves with a group of units."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    r"""Which entries of one named tensor belong to which unit, and what a factor τ does to them.

    .. math:: t' = (t + a)\,\tau^k - a

    Args:
        name: Name of the parameter or buffer in the model.
        units: The unit of every entry, from 0, and -1 where there is none; its shape can be
            broadcast to that of the tensor. ``[[0], [1], [2]]`` are the rows of a matrix.
        power: The exponent k: 1 where the units are produced, -1 where they are read, 2 for a
            running variance.
        offset: The constant a: ``eps`` for a running variance, which enters as ``var + eps``.
        turns: Which of a unit's entries each is, of the shape of ``units``: entries with equal
            numbers face each other when units change places. None if they do in the order in
            which they lie.

    Example:
        >>> rows = Slot("weight", torch.tensor([[0], [1]]), 1)
        >>> rows.scaled(torch.ones(2, 3), torch.tensor([2.0, 5.0]))[:, 0].tolist()
        [2.0, 5.0]
    """

    name: str
    units: Tensor
    power: float
    offset: float = 0.0
    turns: Tensor | None = None

    def scaled(self, tensor: Tensor, factors: Tensor) -> Tensor:
        """Return ``tensor`` after factors of shape ``(units,)``."""
        one = torch.ones(1, dtype=tensor.dtype, device=factors.device)
        known = torch.cat([one, factors.to(tensor.dtype) ** self.power])
        powers = known[(self.units + 1).to(factors.device)]
        return (tensor + self.offset) * powers - self.offset if self.offset else tensor * powers

    def reordered(self, tensor: Tensor, order: Tensor) -> Tensor:
        """Return ``tensor`` with its units in a new order, of shape ``(units,)``.

        The units run along one axis; each entry goes where the one that faces it was.
        """
        along = [axis for axis, size in enumerate(self.units.shape) if size > 1]
        axis = along[0] if along else 0
        places = self.places(len(order)).to(order.device)
        source = torch.arange(self.units.numel(), device=order.device)
        source[places.flatten()] = places[order].flatten()
        return tensor.index_select(axis - self.units.ndim + tensor.ndim, source)

    def mixed(self, tensor: Tensor, matrix: Tensor) -> Tensor:
        """Return ``tensor`` with units multiplied by a matrix, of shape ``(units, units)``.

        Where the units are produced by the matrix itself, and where they are read by its inverse,
        transposed. The k-th entries of all units are one vector, in the order in which they lie.
        """
        factor = matrix.to(tensor.dtype)
        factor = factor if self.power > 0 else torch.linalg.inv(factor).mT
        missing = tensor.ndim - self.units.ndim
        along = [missing + axis for axis, size in enumerate(self.units.shape) if size > 1]
        places = self.places(len(matrix)).to(tensor.device)
        front = tensor.movedim(along, tuple(range(len(along))))
        rows = front.reshape(self.units.numel(), -1).clone()
        rows[places] = torch.einsum("ij,jkr->ikr", factor, rows[places])
        return rows.view(front.shape).movedim(tuple(range(len(along))), along)

    def places(self, size: int) -> Tensor:
        """Where the entries of each unit lie among the units, of shape ``(size, entries)``."""
        line = self.units.flatten()
        order = torch.arange(len(line), device=line.device)
        if self.turns is not None:
            order = self.turns.flatten().argsort(stable=True)
        order = order[line[order].argsort(stable=True)]
        return order[(line < 0).sum() :].view(size, -1)

    def totals(self, tensor: Tensor, size: int) -> Tensor:
        """Return the sum of the entries of each of ``size`` units."""
        units = (self.units + 1).to(tensor.device).expand(tensor.shape)
        sums = torch.zeros(size + 1, dtype=tensor.dtype, device=tensor.device)
        return sums.index_add_(0, units.reshape(-1), tensor.reshape(-1))[1:]
