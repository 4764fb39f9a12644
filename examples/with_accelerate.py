"""Accelerate: prepare the optimizer as usual and open the block on it itself.

What ``prepare`` returns knows the methods of an ordinary optimizer only.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from task import RHO, batches, loss_of, network, report
from torch import nn

from flatmin import SAM


def train() -> nn.Module:
    """Return the trained model."""
    accelerator = Accelerator(cpu=True)
    net = network()
    sam = SAM(torch.optim.SGD(net.named_parameters(), lr=0.1, momentum=0.9), rho=RHO, model=net)
    model, optimizer = accelerator.prepare(net, sam)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for inputs, targets in batches():
        optimizer.zero_grad()
        accelerator.backward(loss_of(model, inputs, targets))
        with sam.perturbed():
            accelerator.backward(loss_of(model, inputs, targets))
        optimizer.step()
        scheduler.step()
    return accelerator.unwrap_model(model)


if __name__ == "__main__":
    report(train())
