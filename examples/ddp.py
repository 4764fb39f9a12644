"""Replicas on several processes: torchrun --nproc-per-node 2 examples/ddp.py.

The perturbation here is the one of the whole batch. For one per process, run the first pass under
``model.no_sync()``; for one per group of processes, average the first gradients in that group.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from task import RHO, batches, loss_of, network, report
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from flatmin import SAM


def train() -> nn.Module:
    """Return the trained model; every process has the same."""
    rank, world = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(network())
    base = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    optimizer = SAM(base, rho=RHO, model=model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for inputs, targets in batches():
        share = inputs.chunk(world)[rank], targets.chunk(world)[rank]
        optimizer.zero_grad()
        loss_of(model, *share).backward()
        with optimizer.perturbed():
            loss_of(model, *share).backward()
        optimizer.step()
        scheduler.step()
    return model.module


if __name__ == "__main__":
    dist.init_process_group("gloo")
    trained = train()
    if dist.get_rank() == 0:
        report(trained)
    dist.destroy_process_group()
