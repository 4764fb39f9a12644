"""Lightning Fabric: nothing special; ``setup`` takes the optimizer like any other."""

from __future__ import annotations

import torch
from lightning.fabric import Fabric
from task import RHO, batches, loss_of, network, report
from torch import nn

from flatmin import SAM


def train() -> nn.Module:
    """Return the trained model."""
    fabric = Fabric(accelerator="cpu", devices=1)
    net = network()
    base = torch.optim.SGD(net.named_parameters(), lr=0.1, momentum=0.9)
    model, optimizer = fabric.setup(net, SAM(base, rho=RHO, model=net))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for inputs, targets in batches():
        optimizer.zero_grad()
        fabric.backward(loss_of(model, inputs, targets))
        with optimizer.perturbed():
            fabric.backward(loss_of(model, inputs, targets))
        optimizer.step()
        scheduler.step()
    return net


if __name__ == "__main__":
    report(train())
