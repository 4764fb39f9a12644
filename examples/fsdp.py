"""Parameters sharded over processes: torchrun --nproc-per-node 2 examples/fsdp.py.

The ball spans all shards: norms are summed over the processes, weights never leave theirs.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from task import RHO, batches, loss_of, network, report
from torch import nn
from torch.distributed.fsdp import fully_shard

from flatmin import SAM


def train() -> nn.Module:
    """Return the trained model, still sharded."""
    rank, world = dist.get_rank(), dist.get_world_size()
    model = network()
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    fully_shard(model)
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
    return model


if __name__ == "__main__":
    dist.init_process_group("gloo")
    trained = train()
    whole = network()
    whole.load_state_dict({k: v.full_tensor() for k, v in trained.state_dict().items()})
    if dist.get_rank() == 0:
        report(whole)
    dist.destroy_process_group()
