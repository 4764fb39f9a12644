"""Parameters spread over two processes: what each computes for test_processes.py."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FullyShardedDataParallel,
    MixedPrecisionPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import SequenceParallel, parallelize_module
from two_processes import (
    ALL,
    CHECKS,
    WITH_ORDERS,
    WORLD,
    alone,
    batch,
    check,
    gap,
    mine,
    network,
    optimizer_of,
    step,
    vector,
)

from flatmin import SAM, Ball
from flatmin.scale import Filterwise

__all__ = ["CHECKS"]


def sharded(policy: MixedPrecisionPolicy | None = None, dtype: torch.dtype = torch.float64) -> Any:
    model = network(dtype)
    options = {"mp_policy": policy} if policy else {}
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, **options)
    return fully_shard(model, **options)


@check
def fsdp_equals_one_process(rank: int) -> dict[str, float]:
    gaps = {}
    for variant, p in WITH_ORDERS:
        model = sharded()
        optimizer = optimizer_of(variant, model, p=p)
        steps = 30 if (variant, p) == ("ASAM", 2.0) else 3
        for i in range(steps):
            step(optimizer, model, *mine(rank, *batch(i)))
        gaps[f"{variant} p={p}"] = gap(vector(model), alone(variant, "SGD", steps, p=p))
    return gaps


def alone_in_single(policy_steps: int) -> Tensor:
    """One process doing what the policy says: compute in float32, average in float64."""
    model = network()
    optimizer = optimizer_of("SAM", model)

    def backward(x: Tensor, y: Tensor) -> None:
        for rank in range(WORLD):
            single = {name: p.float() for name, p in model.named_parameters()}
            part, targets = mine(rank, x.float(), y)
            outputs = torch.func.functional_call(model, single, (part,))
            (nn.functional.cross_entropy(outputs, targets) / WORLD).backward()

    for i in range(policy_steps):
        optimizer.zero_grad()
        backward(*batch(i))
        with optimizer.perturbed():
            backward(*batch(i))
        optimizer.step()
    return vector(model)


@check
def fsdp_mixed_precision(rank: int) -> float:
    model = sharded(MixedPrecisionPolicy(torch.float32, torch.float64))
    optimizer = optimizer_of("SAM", model)
    for i in range(30):
        step(optimizer, model, *mine(rank, *batch(i)))
    return gap(vector(model), alone_in_single(30))


@check
def fsdp_restores(rank: int) -> dict[str, bool]:
    """With lr = 0, an event on one process and an exception on both: every bit, in its place."""
    found = {}
    for name, policy in (("plain", None), ("mixed", MixedPrecisionPolicy(torch.bfloat16))):
        model = sharded(policy, torch.float32)
        optimizer = optimizer_of("ASAM", model, lr=0.0)
        places = [p.to_local().data_ptr() for p in model.parameters()]
        before = [p.to_local().clone() for p in model.parameters()]
        moved = False
        for i in range(10):
            x, y = mine(rank, *batch(i, torch.float32))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x).float(), y).backward()
            if i == 2 and rank == 1:
                model[0].weight.grad.to_local()[0, 0] = math.inf
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    with optimizer.perturbed():
                        here = [p.to_local() for p in model.parameters()]
                        moved |= not all(map(torch.equal, here, before))
                        nn.functional.cross_entropy(model(x).float(), y).backward()
                        if i == 4:
                            raise KeyError
                        if i == 6 and rank == 0:
                            model[0].weight.grad.to_local()[0, 0] = math.nan
                    optimizer.step()
            except KeyError:
                pass
        after = [p.to_local() for p in model.parameters()]
        found[name] = all(map(torch.equal, before, after)) and moved
        found[name] &= places == [p.to_local().data_ptr() for p in model.parameters()]
    return found


@check
def fsdp_event(rank: int) -> Any:
    """An event on one process skips the step on both, with a warning on both."""
    steps = []
    for where in ("first", "second"):
        model = sharded(dtype=torch.float32)
        optimizer = optimizer_of("SAM", model)
        before = vector(model)
        x, y = mine(rank, *batch(0, torch.float32))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            nn.functional.cross_entropy(model(x), y).backward()
            if where == "first" and rank == 1:
                model[0].weight.grad.to_local()[0, 0] = math.inf
            with optimizer.perturbed():
                nn.functional.cross_entropy(model(x), y).backward()
                if where == "second" and rank == 1:
                    model[0].weight.grad.to_local()[0, 0] = math.inf
            optimizer.step()
        told = sum("skipped a step" in str(w.message) for w in caught)
        steps.append((gap(before, vector(model)), told))
    return steps


@check
def fsdp_closure(rank: int) -> dict[str, Any]:
    """Gradients that autograd does not write: a closure is one step, or is refused."""

    def closure_of(model: nn.Module, optimizer: Any, *, clear: bool) -> Any:
        def closure() -> Tensor:
            if clear:
                model.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        return closure

    model = sharded()
    optimizer = optimizer_of("SAM", model)
    for i in range(3):
        x, y = mine(rank, *batch(i))
        optimizer.step(closure_of(model, optimizer, clear=True))
    found: dict[str, Any] = {"gap": gap(vector(model), alone("SAM", "SGD", 3))}
    try:
        optimizer.step(closure_of(model, optimizer, clear=False))
    except RuntimeError as error:
        found["refused"] = str(error)
    return found


@check
def fsdp1(rank: int) -> dict[str, str]:
    """Shards that look like whole tensors, flat or as views, however early they are wrapped."""
    said = {}
    for original in (False, True):
        model = FullyShardedDataParallel(
            network(), device_id=torch.device("cpu"), use_orig_params=original
        )
        for variant in ALL:
            try:
                optimizer_of(variant, model)
            except TypeError as error:
                said[f"{variant} {original}"] = str(error)
    return said


class Normed(nn.Module):
    """A norm layer over a sequence, then a mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        h = h.full_tensor() if isinstance(h, DTensor) else h
        return self.head(h.mean(1))


@check
def sequence_parallel(rank: int) -> dict[str, float]:
    """Gradients of the norm layer are summands on each process: distance to one process."""
    gaps = {}
    mesh = init_device_mesh("cpu", (WORLD,))
    source = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, 4, generator=source, dtype=torch.float64)
    y = torch.randint(3, (6,), generator=source)
    for variant, p in WITH_ORDERS:
        whole, spread = Normed().double(), Normed().double()
        parallelize_module(spread, mesh, {"norm": SequenceParallel()})
        for model, inputs in ((whole, x), (spread, distribute_tensor(x, mesh, [Shard(1)]))):
            optimizer = optimizer_of(variant, model, p=p)
            for _ in range(3):
                step(optimizer, model, inputs, y)
        gaps[f"{variant} p={p}"] = gap(vector(spread), vector(whole))
    return gaps


@check
def whole_tensors(rank: int) -> str:
    """A scale that has to see them is refused where they are in parts."""

    class ByFilters(SAM):
        def _ball(self, group: dict[str, Any]) -> Ball:
            return Ball(group["sam_rho"], self.p, Filterwise())

    model = sharded()
    optimizer = ByFilters(torch.optim.SGD(model.parameters(), lr=0.1))
    x, y = mine(rank, *batch(0))
    nn.functional.cross_entropy(model(x), y).backward()
    try:
        with optimizer.perturbed():
            pass
    except TypeError as error:
        return str(error)
    return ""
