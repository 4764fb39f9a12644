"""The processes that train together: one, or as many as torchrun started.

The only file of training that knows ``torch.distributed``. A team of one does nothing special, so
the loop is written once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from flatmin.train.stops import Interrupted

Result = TypeVar("Result")

PARALLEL = ("ddp", "fsdp")


@dataclass(frozen=True, slots=True)
class Team:
    """This process among those that train together.

    Attributes:
        rank: Number of this process, from 0; rank 0 writes.
        size: Number of processes.
        device: Where this process computes.

    Example:
        >>> Team().sum(torch.tensor(3.0)).item(), Team().any(False)
        (3.0, False)
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _replicas: list[nn.Module] = field(default_factory=list, repr=False, compare=False)

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of the rows of a batch."""
        return rows if self.size == 1 else rows.tensor_split(self.size)[self.rank]

    def sum(self, value: Tensor) -> Tensor:
        """Sum over all processes."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Whether the flag is true on any process."""
        # On the CPU, so that asking in every step does not wait for an accelerator.
        return bool(self.sum(torch.tensor(float(flag))).item()) if self.size > 1 else flag

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def first(self, action: Callable[[], Result]) -> Result:
        """Do something on rank 0 alone; every process gets its result, or its error."""
        if self.size == 1:
            return action()
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = action()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        result: Result = outcome[0]
        return result

    def wrap(self, model: nn.Module, parallel: str) -> nn.Module:
        """Replicate the model over the processes (``ddp``) or spread it over them (``fsdp``)."""
        if self.size == 1:
            return model
        if parallel == "ddp":
            replicas = nn.parallel.DistributedDataParallel(model)
            # Buffers do not enter the training pass; ``align`` makes them equal where it matters.
            # Torch is about to rename the argument that says so.
            replicas.broadcast_buffers = False
            self._replicas.append(replicas)
            return replicas
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.size,))
        for child in model.children():
            if any(True for _ in child.parameters()):
                fully_shard(child, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model

    @contextmanager
    def exchange(self, model: nn.Module, wanted: bool) -> Iterator[None]:
        """Exchange gradients in the backward passes inside, or only add them up here."""
        if isinstance(model, nn.parallel.DistributedDataParallel):
            with nullcontext() if wanted else model.no_sync():
                yield
        else:
            if self.size > 1:
                model.set_requires_gradient_sync(wanted)  # type: ignore[operator]
            yield

    def part(self) -> None:
        """Let replicas go of the process group; they cannot be trained on.

        Were they the last that hold it, its threads would be waited for under the lock of Python,
        which these need to end: torch 2.13 then hangs, now and then, when the training is over.
        """
        while self._replicas:
            replicas = vars(self._replicas.pop())
            for name in ("reducer", "logger"):
                replicas.pop(name, None)

    def align(self, model: nn.Module) -> None:
        """Give every process the buffers (BatchNorm statistics) of rank 0."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)


@contextmanager
def join(device: str) -> Iterator[Team]:
    """Meet the processes that torchrun started, if it did, and part again at the end.

    Args:
        device: ``cpu`` or ``cuda``; under torchrun each process takes the accelerator of its
            local rank. A process group that is already there is used and left alone.

    Yields:
        The team; one process alone without torchrun.

    Raises:
        ValueError: If the device is not there.
        Interrupted: If the body raises it.

    Example:
        >>> with join("cpu") as team:
        ...     team.rank, team.size
        (0, 1)
    """
    able = dist.is_available()
    found = able and dist.is_initialized()
    launched = able and dist.is_torchelastic_launched()
    size = int(os.environ["WORLD_SIZE"]) if launched else 1
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}.")
    home = torch.device(device)
    if home.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("device is cuda, but this machine offers none; use device=cpu.")
        if found or size > 1:
            home = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(home)
    if found:
        yield Team(dist.get_rank(), dist.get_world_size(), home)
    elif size == 1:
        yield Team(device=home)
    else:
        _meet("cpu:gloo,cuda:nccl" if home.type == "cuda" else "gloo")
        team = Team(dist.get_rank(), dist.get_world_size(), home)
        try:
            yield team
            dist.barrier()  # the last to finish still talks to the others
        except Interrupted:
            dist.barrier()  # all of them were, after the same step
            raise
        finally:
            team.part()
            dist.destroy_process_group()


def _meet(backend: str) -> None:
    """Start the process group of torchrun's processes, at the first time or after a restart."""
    if os.environ["LOCAL_WORLD_SIZE"] != os.environ["WORLD_SIZE"]:
        dist.init_process_group(backend)
        return
    # On one machine torchrun keeps its store over restarts, and what the dead wrote there would be
    # read (pytorch #135712). Over several machines the count differs from one to the other.
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))
    attempt = PrefixStore(f"attempt-{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=attempt, rank=rank, world_size=size)


def gathered(tree: Any) -> Any:
    """Copy nested dictionaries and lists of tensors to the CPU, spread tensors made whole."""
    if isinstance(tree, dict):
        return {key: gathered(value) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(gathered(value) for value in tree)
    if not isinstance(tree, Tensor):
        return tree
    whole = tree.full_tensor() if _is_spread(tree) else tree  # type: ignore[attr-defined]
    whole = whole.detach().cpu()
    # What was expanded is written out, so that a file holds as much as what is read from it.
    return whole.contiguous() if 0 in whole.stride() else whole


def spread_like(value: Tensor, own: Tensor) -> Tensor:
    """Spread a whole tensor over the processes as ``own`` is; an ordinary one stays whole."""
    if not _is_spread(own):
        return value
    from torch.distributed.tensor import distribute_tensor

    value = value.to(own.device)
    return distribute_tensor(value, own.device_mesh, own.placements)  # type: ignore[attr-defined]


def _is_spread(tensor: Tensor) -> bool:
    if not (dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)
