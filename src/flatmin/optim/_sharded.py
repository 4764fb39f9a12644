"""Parameters spread over processes: local parts, and sums over all of them.

The only file of the optimizers that knows ``torch.distributed``; without a process group it does
nothing and imports nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

Spread = tuple[Any, tuple[Any, ...]]
"""Device mesh and placements of a sharded tensor."""


def active() -> bool:
    """Whether there are other processes at all."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def spread(tensor: Tensor) -> Spread | None:
    """How a tensor is spread over processes; None for an ordinary one."""
    if not active():
        return None
    from torch.distributed.tensor import DTensor

    return (tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else None


def local(tensor: Tensor) -> Tensor:
    """This process's part, in the same memory."""
    if spread(tensor) is None:
        return tensor
    return tensor.to_local()  # type: ignore[attr-defined, no-any-return]


def combine(norm: Tensor, spread: Spread | None, order: float) -> Tensor:
    """Norm of a whole spread tensor from the norm of this process's part."""
    if spread is None:
        return norm
    from torch.distributed.tensor import DTensor, Partial, Replicate

    mesh, placements = spread
    over = Partial("max") if math.isinf(order) else Partial("sum")
    how = [over if placement.is_shard() else Replicate() for placement in placements]
    part = norm if math.isinf(order) else norm.double() ** order
    whole = DTensor.from_local(part.to(mesh.device_type), mesh, how).full_tensor()
    return whole if math.isinf(order) else (whole ** (1.0 / order)).to(norm.dtype)


def agree(flag: bool, groups: Iterable[dict[str, Any]]) -> bool:
    """Whether the flag is true on every process that holds a part of the parameters."""
    if not active():
        return flag
    meshes = {s[0] for group in groups for p in group["params"] if (s := spread(p))}
    for mesh in sorted(meshes, key=lambda m: m.mesh.flatten().tolist()):
        for dim in range(mesh.ndim):
            vote = torch.tensor(float(flag), device=mesh.device_type)
            team = mesh.get_group(dim)
            torch.distributed.all_reduce(vote, torch.distributed.ReduceOp.MIN, group=team)
            flag = bool(vote.item())
    return flag
