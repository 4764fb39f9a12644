"""What each of two processes measures for test_split_data.py, on its part of the data."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

from flatmin import Ball, Elementwise, EmpiricalLoss, FiniteDifferences, ShardedLoss
from flatmin.sharpness import (
    average_sharpness,
    gradient_norm,
    hessian_trace,
    m_sharpness,
    one_step_sharpness,
    per_layer,
    spectral_density,
    top_eigenvalues,
    worst_case_sharpness,
)

WORLD = 2
BALL = Ball(0.3, scale=Elementwise())
Batches = list[tuple[Tensor, Tensor]]


def network() -> nn.Module:
    """The same in every process."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4)).double()


def batches() -> Batches:
    """Five batches, 21 examples."""
    source = torch.Generator().manual_seed(1)
    x = torch.randn(21, 3, generator=source, dtype=torch.float64)
    y = torch.randint(4, (21,), generator=source)
    return list(zip(x.split(5), y.split(5), strict=True))


def part(rank: int, shares: str) -> Batches:
    """Three batches and two, or all and none."""
    if shares == "all and none":
        return batches() if rank == 0 else []
    return batches()[:3] if rank == 0 else batches()[3:]


def measured(loss: EmpiricalLoss) -> dict[str, float]:
    """A number of each measure."""
    w = loss.params
    layers = per_layer(one_step_sharpness, loss, w, BALL)
    return {
        "loss": loss.value(w).item(),
        "one step": one_step_sharpness(loss, w, BALL).value,
        "box": one_step_sharpness(loss, w, Ball(0.1, math.inf, Elementwise())).value,
        "worst": worst_case_sharpness(loss, w, BALL, steps=5, restarts=1).value,
        "average": average_sharpness(loss, w, BALL, samples=5).value,
        "gradient": gradient_norm(loss, w).value,
        "trace": hessian_trace(loss, w, samples=5).value,
        "eigenvalue": top_eigenvalues(loss, w).value,
        "density": spectral_density(loss, w, samples=2, steps=6).nodes[0],
        "micro": m_sharpness(loss, w, BALL, m=5).value,
        "layers": layers["2"].value,
    }


def bent(loss: Any) -> dict[str, float]:
    """Second order by differences of gradients, and what else a sharded network has."""
    w, curved = loss.params, FiniteDifferences(loss)
    return {
        "loss": loss.value(w).item(),
        "gradient": gradient_norm(loss, w).value,
        "one step": one_step_sharpness(loss, w, BALL).value,
        "trace": hessian_trace(curved, w, samples=5).value,
        "eigenvalue": top_eigenvalues(curved, w).value,
        "density": spectral_density(curved, w, samples=2, steps=6).nodes[0],
    }


def split_weights(rank: int) -> dict[str, Any]:
    """The same from shards, with data split as well; and what is refused."""
    mesh = init_device_mesh("cpu", (WORLD,))

    def sharded(*layers: nn.Module) -> nn.Module:
        return fully_shard(nn.Sequential(network(), *layers), mesh=mesh)

    even = part(rank, "unequal")[:2] if rank == 0 else part(rank, "unequal")
    model = sharded()
    before = [p.to_local().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model(even[0][0])  # which leaves whole weights behind
    loss = ShardedLoss(model, F.cross_entropy, even)
    found: dict[str, Any] = {"bent": bent(loss)}
    after = [p.to_local() for p in model.parameters()]
    found["kept"] = all(map(torch.equal, before, after)) and all(
        bool((p.grad.to_local() == 1).all()) for p in model.parameters()
    )
    normed = sharded(nn.BatchNorm1d(4).double())
    several = batches()[2 * rank : 2 * rank + 2]
    ShardedLoss(normed.eval(), F.cross_entropy, several)
    found["kept"] &= int(normed[1].num_batches_tracked) == 0
    batch_mean = complaint(lambda: ShardedLoss(normed.train(), F.cross_entropy, several))
    found["kept"] &= int(normed[1].num_batches_tracked) == 0 and not batch_mean
    found["products"] = complaint(lambda: hessian_trace(loss, loss.params))
    found["uneven"] = complaint(lambda: ShardedLoss(model, F.cross_entropy, part(rank, "unequal")))
    found["points"] = complaint(lambda: loss.value({k: v + rank for k, v in loss.params.items()}))
    found["random"] = complaint(
        lambda: ShardedLoss(sharded(nn.Dropout(0.5)), F.cross_entropy, even)
    )
    found["summed"] = complaint(
        lambda: ShardedLoss(model, lambda o, t: F.cross_entropy(o, t, reduction="sum"), even)
    )
    found["whole"] = complaint(lambda: ShardedLoss(network(), F.cross_entropy, even))
    found["part"] = complaint(
        lambda: ShardedLoss(
            fully_shard(nn.Sequential(network(), nn.Linear(4, 4).double()), mesh=mesh)[0],
            F.cross_entropy,
            even,
        )
    )
    model.set_requires_gradient_sync(False)
    found["held"] = complaint(lambda: loss.value_and_grad(loss.params))
    return found


def complaint(act: Callable[[], object]) -> str:
    """What an action is told."""
    try:
        act()
    except (ValueError, TypeError, RuntimeError) as error:
        return str(error)
    return ""


class Shrinking:
    """Data of which one process loses a batch after three passes."""

    def __init__(self, rank: int) -> None:
        self.rank, self.passes = rank, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        mine = part(self.rank, "unequal")
        return iter(mine[:-1] if self.passes > 3 and self.rank == 1 else mine)


class Branching(nn.Module):
    """Another function where no gradients are wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out if torch.is_grad_enabled() else 2.0 * out


def results(rank: int) -> dict[str, Any]:
    """Everything that is asked of one process."""
    world = dist.group.WORLD
    found: dict[str, Any] = {
        shares: measured(EmpiricalLoss(network(), F.cross_entropy, part(rank, shares), group=world))
        for shares in ("unequal", "all and none")
    }
    loss = EmpiricalLoss(network(), F.cross_entropy, part(rank, "unequal"), group=world)
    own = torch.Generator().manual_seed(rank)
    found["other seeds"] = complaint(
        lambda: average_sharpness(loss, loss.params, BALL, samples=2, generator=own)
    )
    shrinking = EmpiricalLoss(network(), F.cross_entropy, Shrinking(rank), group=world)
    found["shrinking"] = complaint(lambda: shrinking.value({}))
    dropping = nn.Sequential(network(), nn.Dropout(0.5 if rank else 0.0))
    found["dropout"] = complaint(
        lambda: EmpiricalLoss(dropping, F.cross_entropy, part(rank, "unequal"), group=world)
    )
    weighted = nn.CrossEntropyLoss(weight=torch.arange(1.0, 5.0))
    one_each = [tuple(map(torch.cat, zip(*part(rank, "unequal"), strict=True)))]
    found["weighted"] = complaint(lambda: EmpiricalLoss(network(), weighted, one_each, group=world))
    branching = Branching() if rank else network()
    found["mode"] = complaint(
        lambda: EmpiricalLoss(branching, F.cross_entropy, part(rank, "unequal"), group=world)
    )
    found["nothing"] = complaint(lambda: EmpiricalLoss(network(), F.cross_entropy, [], group=world))
    mesh, cpu = init_device_mesh("cpu", (WORLD,)), torch.device("cpu")
    for name, shard in (
        ("flat shards", lambda model: FullyShardedDataParallel(model, device_id=cpu)),
        ("sharded tensors", lambda model: fully_shard(model, mesh=mesh)),
    ):
        found[name] = complaint(
            lambda shard=shard: EmpiricalLoss(
                shard(network()), F.cross_entropy, part(rank, "unequal"), group=world
            )
        )
    found["weights"] = split_weights(rank)
    wrapped = DistributedDataParallel(network())
    found["wrapped"] = complaint(
        lambda: EmpiricalLoss(wrapped, F.cross_entropy, part(rank, "unequal"), group=world)
    )
    return found


def work(rank: int, folder: str) -> None:
    """Measure in one process; leave the results, or a traceback, in a file."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    try:
        found: Any = results(rank)
    except Exception:
        found = RuntimeError(traceback.format_exc())
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
