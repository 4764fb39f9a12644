"""What processes that share the data must tell each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flatmin._types import Params

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Processes:
    """The processes of a group, or this one alone.

    Args:
        group: The processes, or None.
        device: Where the tensors lie that they exchange.
    """

    def __init__(self, group: ProcessGroup | None, device: torch.device) -> None:
        self.group = group
        self.device = device

    def reduce(self, tensor: Tensor) -> Tensor:
        """Sum in place."""
        if self.group is not None:
            import torch.distributed as dist

            dist.all_reduce(tensor, group=self.group)
        return tensor

    def total(self, count: int) -> int:
        """Sum of a count."""
        return int(self.reduce(torch.tensor(count, device=self.device)))

    def agree(self, fault: str | None) -> None:
        """Refuse in every process what one of them found.

        Raises:
            ValueError: If there is a fault.
        """
        if not self.total(fault is not None):
            return
        faults: list[str | None] = [fault]
        if self.group is not None:
            import torch.distributed as dist

            faults = [None] * dist.get_world_size(self.group)
            dist.all_gather_object(faults, fault, group=self.group)
        raise ValueError(next(sentence for sentence in faults if sentence))

    def check_same_point(self, *trees: Params) -> None:
        """Refuse other points in other processes, which would be averaged without a word.

        Raises:
            RuntimeError: If processes drew different random numbers, or hold other parameters.
        """
        if self.group is None:
            return
        import torch.distributed as dist

        mark = torch.zeros((), dtype=torch.float64, device=self.device)
        for t in (t for tree in trees for t in tree.values()):
            mark += t.double().sum().to(mark)
        extremes = torch.stack([mark, -mark])
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=self.group)
        if extremes[0] != -extremes[1] and not extremes.isnan().any():
            raise RuntimeError(
                "the processes of the group ask for the loss at different points; load the same "
                "parameters everywhere, and give each process a generator of the same seed."
            )
