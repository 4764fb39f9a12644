"""What each of two processes computes for test_processes.py; started once for all its tests."""

from __future__ import annotations

import copy
import math
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from cases import ONE_PASS, ORIGINALS, VARIANTS

WORLD = 2
ORDERS = (1.0, 1.5, 2.0, math.inf)
ALL = VARIANTS | ONE_PASS
# Every order for those that only climb; what is done with gradients knows none.
WITH_ORDERS = [(v, p) for v in ALL for p in (ORDERS if v in ORIGINALS else (2.0,))]
# What steps with both gradients takes no local first one with a mean of second ones.
MIXING = ("GSAM", "WSAM", "CoupledWSAM", "SSAM")
CHECKS: dict[str, Callable[[int], Any]] = {}


def check(function: Callable[[int], Any]) -> Callable[[int], Any]:
    CHECKS[function.__name__] = function
    return function


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    """Rows 5, 5, 1, 1 and 3 over two processes: unequal shards, and empty ones."""
    torch.manual_seed(0)
    layers = nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1), nn.Tanh(), nn.Linear(1, 3, bias=False)
    return nn.Sequential(*layers).to(dtype)


def batch(step: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(step)
    x = torch.randn(6, 4, generator=source, dtype=torch.float64)
    return x.to(dtype), torch.randint(3, (6,), generator=source)


def mine(rank: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x.chunk(WORLD)[rank], y.chunk(WORLD)[rank]


def optimizer_of(variant: str, module: nn.Module, base: str = "SGD", **options: Any) -> Any:
    named = list(module.named_parameters())
    lr = options.pop("lr", 0.1)
    if base == "SGD":
        return ALL[variant](torch.optim.SGD(named, lr=lr, momentum=0.9), **options)
    return ALL[variant](torch.optim.Adam(named, lr=lr), **options)


def step(optimizer: Any, model: Any, x: Tensor, y: Tensor, first: Any = nullcontext) -> None:
    optimizer.zero_grad()
    if not optimizer.one_pass:
        with first():
            nn.functional.cross_entropy(model(x), y).backward()
    with optimizer.perturbed():
        nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def vector(module: nn.Module) -> Tensor:
    parts = [
        p.full_tensor() if isinstance(p, DTensor) else p
        for p in map(Tensor.detach, module.parameters())
    ]
    return torch.cat([part.flatten() for part in parts])


def alone(variant: str, base: str, steps: int, **options: Any) -> Tensor:
    """One process with the whole batch."""
    model = network()
    optimizer = optimizer_of(variant, model, base, **options)
    for i in range(steps):
        step(optimizer, model, *batch(i))
    return vector(model)


def gap(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


@check
def ddp_synced(rank: int) -> dict[str, float]:
    """The perturbation from the averaged gradient: distance to one process after 30 steps."""
    gaps = {}
    for variant in ALL:
        for base in ("SGD", "Adam") if variant == "SAM" else ("SGD",):
            model = DistributedDataParallel(network())
            optimizer = optimizer_of(variant, model, base, model=model)
            for i in range(30):
                step(optimizer, model, *mine(rank, *batch(i)))
            gaps[f"{variant} {base}"] = gap(vector(model), alone(variant, base, 30))
    return gaps


@check
def ddp_local(rank: int) -> dict[str, Any]:
    """A perturbation per process, 200 steps: weights of each, and the distance to synced ones."""
    found = {}
    for variant in [variant for variant in ALL if variant not in MIXING]:
        model = DistributedDataParallel(network(torch.float32))
        optimizer = optimizer_of(variant, model, lr=0.01, model=model)
        for i in range(200):
            step(optimizer, model, *mine(rank, *batch(i, torch.float32)), first=model.no_sync)
        found[variant] = vector(model)
    return found


@check
def ddp_halves(rank: int) -> dict[str, str]:
    """A first gradient of one process with a second one of all; and what buckets do to it."""
    said = {}
    for variant in MIXING:
        model = DistributedDataParallel(network(), gradient_as_bucket_view=True)
        optimizer = optimizer_of(variant, model, model=model)
        try:
            step(optimizer, model, *mine(rank, *batch(0)), first=model.no_sync)
        except RuntimeError as error:
            said[variant] = str(error)
        for i in range(5):
            step(optimizer, model, *mine(rank, *batch(i)))
        said[f"{variant} after"] = f"{gap(vector(model), alone(variant, 'SGD', 5)):.1e}"
    return said


@check
def ddp_local_by_hand(rank: int) -> float:
    """One step: the mean over processes of the gradient of each at its own worst point."""
    model = DistributedDataParallel(network())
    step(optimizer_of("SAM", model), model, *mine(rank, *batch(0)), first=model.no_sync)
    grads = []
    for other in range(WORLD):
        moved = network()
        climber = optimizer_of("SAM", moved)
        x, y = mine(other, *batch(0))
        nn.functional.cross_entropy(moved(x), y).backward()
        with climber.perturbed():
            loss = nn.functional.cross_entropy(moved(x), y)
            grads.append(torch.autograd.grad(loss, list(moved.parameters())))
    expected = network()
    with torch.no_grad():
        for p, *parts in zip(expected.parameters(), *grads, strict=True):
            p -= 0.1 * sum(parts) / WORLD
    return gap(vector(model), vector(expected))


def with_an_event(rank: int, given: bool) -> tuple[Tensor, int]:
    """60 steps with local perturbations; the gradient of one process is not finite once."""
    model = DistributedDataParallel(network(torch.float32))
    options = {"model": model} if given else {}
    optimizer = optimizer_of("SAM", model, lr=0.01, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(60):
            x, y = mine(rank, *batch(i, torch.float32))
            optimizer.zero_grad()
            with model.no_sync():
                nn.functional.cross_entropy(model(x), y).backward()
            if i == 20 and rank == 1:
                model.module[0].weight.grad[0, 0] = math.inf
            with optimizer.perturbed():
                nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return vector(model), len([w for w in caught if "skipped a step" in str(w.message)])


@check
def ddp_local_event(rank: int) -> Any:
    return with_an_event(rank, given=True)


@check
def ddp_local_event_without_model(rank: int) -> Any:
    return with_an_event(rank, given=False)


@check
def ddp_scaler_event(rank: int) -> Any:
    """The same under a scaler: both lower their scale, and both skip."""
    model = DistributedDataParallel(network(torch.float32))
    optimizer = optimizer_of("SAM", model)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for i in range(4):
        x, y = mine(rank, *batch(i, torch.float32))
        optimizer.zero_grad()
        with model.no_sync():
            scaler.scale(nn.functional.cross_entropy(model(x), y)).backward()
        if i == 2 and rank == 1:
            model.module[0].weight.grad[0, 0] = math.nan
        with optimizer.perturbed():
            scaler.scale(nn.functional.cross_entropy(model(x), y)).backward()
        scaler.step(optimizer)
        scaler.update()
    return vector(model), scaler.get_scale()


@check
def groups_of_processes(rank: int) -> dict[str, float]:
    """First gradients averaged over a subgroup: over all it is synced, over one it is local."""
    everyone = dist.new_group([0, 1])
    each = [dist.new_group([i]) for i in range(WORLD)][rank]
    found = {}
    for name, team in (("everyone", everyone), ("each", each)):
        results = []
        for by_hand in (True, False):
            model = DistributedDataParallel(network())
            optimizer = optimizer_of("ASAM", model)
            for i in range(10):
                x, y = mine(rank, *batch(i))
                optimizer.zero_grad()
                if by_hand:
                    with model.no_sync():
                        nn.functional.cross_entropy(model(x), y).backward()
                    for p in model.parameters():
                        dist.all_reduce(p.grad, dist.ReduceOp.SUM, group=team)
                        p.grad /= dist.get_world_size(team)
                else:
                    with nullcontext() if name == "everyone" else model.no_sync():
                        nn.functional.cross_entropy(model(x), y).backward()
                with optimizer.perturbed():
                    nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            results.append(vector(model))
        found[name] = gap(*results)
    return found


@check
def ddp_statistics(rank: int) -> Any:
    """Buffers that DDP broadcasts in the second pass are put back as well."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))
    twin = DistributedDataParallel(copy.deepcopy(net))
    model = DistributedDataParallel(net)
    bare = torch.optim.SGD(twin.parameters(), lr=0.1)
    optimizer = optimizer_of("SAM", model, rho=0.0, model=model)
    optimizer.param_groups[0]["momentum"] = 0.0
    state = torch.get_rng_state()
    for i in range(4):
        step(optimizer, model, *mine(rank, *batch(i, torch.float32)))
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    for i in range(4):
        x, y = mine(rank, *batch(i, torch.float32))
        bare.zero_grad()
        nn.functional.cross_entropy(twin(x), y).backward()
        bare.step()
    same_stream = torch.equal(after, torch.get_rng_state())
    pairs = zip(model.state_dict().values(), twin.state_dict().values(), strict=True)
    return same_stream and all(torch.equal(a, b) for a, b in pairs)


@check
def examples(rank: int) -> dict[str, Any]:
    """The recipes, as a user runs them, with the process group that is already there."""
    import ddp
    import fsdp

    return {"ddp": vector(ddp.train()), "fsdp": vector(fsdp.train())}


def work(rank: int, folder: str, paths: list[str]) -> None:
    """Run all checks in one process; leave their results, or their tracebacks, in a file."""
    import sys

    sys.path[:0] = paths
    import two_shards  # its checks are registered here too

    assert two_shards.CHECKS is CHECKS
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    results: dict[str, Any] = {}
    for name, function in CHECKS.items():
        try:
            results[name] = function(rank)
        except Exception:
            results[name] = RuntimeError(traceback.format_exc())
            break  # the other process is elsewhere now
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
