"""The closure, as torch's own LBFGS takes it: ``step`` runs both passes and returns the loss."""

from __future__ import annotations

import torch
from task import RHO, batches, loss_of, network, report
from torch import Tensor, nn

from flatmin import SAM


def train() -> nn.Module:
    """Return the trained model."""
    model = network()
    base = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    optimizer = SAM(base, rho=RHO, model=model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for inputs, targets in batches():

        def closure(inputs: Tensor = inputs, targets: Tensor = targets) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, inputs, targets)
            loss.backward()
            return loss

        optimizer.step(closure)
        scheduler.step()
    return model


if __name__ == "__main__":
    report(train())
