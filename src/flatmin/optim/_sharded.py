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
from torch.nn import Module

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


def summed(grad: Tensor, like: Tensor) -> Tensor:
    """A gradient that is spread as its parameter is.

    Where each process holds a summand (of a norm layer under sequence parallelism, say), the
    gradient is their sum.
    """
    where = spread(like)
    if where is None or spread(grad) in (None, where):
        return grad  # one that is not spread is this process's part already
    return grad.redistribute(*where)  # type: ignore[attr-defined, no-any-return]


def refuse_flat(params: Iterable[Tensor]) -> None:
    """Refuse the parameters of FSDP1, of which each process sees a nameless stretch.

    Raises:
        TypeError: If there is one.
    """
    # Both kinds carry the mark: the flat ones, and the original ones that are views of them.
    if any(hasattr(p, "_fsdp_flattened") for p in params):
        raise TypeError(
            "these parameters are shards of FullyShardedDataParallel (FSDP1), which look like "
            "whole tensors, so that every norm would be that of a part; shard the model with "
            "torch.distributed.fsdp.fully_shard (FSDP2), which is supported."
        )


def refuse_parts(spread: Spread | None, scale: object) -> None:
    """Refuse a scale that has to see tensors whole where they are in parts.

    Raises:
        TypeError: If they are.
    """
    if spread is not None and not all(placement.is_replicate() for placement in spread[1]):
        raise TypeError(
            f"{type(scale).__name__} has to see whole tensors, and these are spread over "
            "processes; use a scale that works number by number, as Identity and Elementwise do."
        )


def combine(norm: Tensor, spread: Spread | None, order: float) -> Tensor:
    """Norm of a whole spread tensor from the norm of this process's part."""
    if spread is None:
        return norm
    from torch.distributed.tensor import DTensor, Partial, Replicate

    mesh, placements = spread
    over = Partial("max") if math.isinf(order) else Partial("sum")
    how = [Replicate() if placement.is_replicate() else over for placement in placements]
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


def replicas(model: Module | None) -> Any:
    """The processes among which DDP averages the gradients of a model; None if there are none."""
    if model is None or not active():
        return None
    from torch.nn.parallel import DistributedDataParallel

    kinds = (m for m in model.modules() if isinstance(m, DistributedDataParallel))
    found = next(kinds, None)
    return None if found is None else found.process_group


def differ(numbers: Tensor, team: Any) -> list[bool]:
    """Which of some numbers are not the same on all processes of a team."""
    parts = [torch.empty_like(numbers) for _ in range(torch.distributed.get_world_size(team))]
    torch.distributed.all_gather(parts, numbers, group=team)
    stack = torch.stack(parts)
    return [bool(different) for different in (stack != stack[0]).any(dim=0)]
