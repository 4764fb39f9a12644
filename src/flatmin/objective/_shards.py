"""A network whose weights are sharded by FSDP2: where, and how to move them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def mesh_of(model: object) -> Any:
    """The processes over which a network is sharded.

    Raises:
        TypeError: If it is not, or in another way.
    """
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    rest = (
        "shard the whole network with fully_shard(model), or take EmpiricalLoss for one that is not"
    )
    if not isinstance(model, FSDPModule) or not isinstance(model, nn.Module):
        raise TypeError(
            f"ShardedLoss takes a network sharded by FSDP2, got {type(model).__name__}; {rest}."
        )
    reshard(model)
    meshes = {p.device_mesh if isinstance(p, DTensor) else None for p in model.parameters()}
    mesh = next(iter(meshes), None)
    if len(meshes) != 1 or mesh is None or mesh.ndim != 1:
        raise TypeError(
            "ShardedLoss takes a network whose parameters are all sharded along one dimension of "
            f"processes, got device meshes {sorted(map(str, meshes))}; {rest}."
        )
    return mesh


def reshard(model: nn.Module) -> None:
    """Drop whole weights that a forward pass leaves behind: they would not see shards change."""
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()  # type: ignore[operator]


def whole(t: Tensor) -> Tensor:
    """Gather a sharded tensor, in every process."""
    return t.full_tensor()  # type: ignore[attr-defined, no-any-return]


@contextmanager
def same_buffers(model: nn.Module) -> Iterator[None]:
    """Put buffers back that a forward pass updates."""
    before = [(m, dict(m._buffers)) for m in model.modules() if m._buffers]
    kept = [(t, t.clone()) for _, named in before for t in named.values() if t is not None]
    try:
        yield
    finally:
        for module, named in before:
            module._buffers.clear()
            module._buffers.update(named)
        with torch.no_grad():
            for t, copy in kept:
                t.copy_(copy)
