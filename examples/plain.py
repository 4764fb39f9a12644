"""The plain loop: one block around the second pass."""

from __future__ import annotations

import torch
from task import RHO, batches, loss_of, network, report
from torch import nn

from flatmin import SAM


def train() -> nn.Module:
    """Return the trained model."""
    model = network()
    base = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    optimizer = SAM(base, rho=RHO, model=model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for inputs, targets in batches():
        optimizer.zero_grad()
        loss_of(model, inputs, targets).backward()
        with optimizer.perturbed():
            loss_of(model, inputs, targets).backward()
        optimizer.step()
        scheduler.step()
    return model


if __name__ == "__main__":
    report(train())
