"""Batches in parts: one perturbation for all of them, or one for each (m-sharpness)."""

from __future__ import annotations

import torch
from task import RHO, batches, loss_of, network, report
from torch import Tensor, nn

from flatmin import SAM

PARTS = 2


def parts_of(inputs: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Equal parts of a batch."""
    return list(zip(inputs.chunk(PARTS), targets.chunk(PARTS), strict=True))


def train() -> nn.Module:
    """Return the model trained with one perturbation for the whole batch."""
    model = network()
    base = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    optimizer = SAM(base, rho=RHO, model=model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for batch in batches():
        optimizer.zero_grad()
        for part in parts_of(*batch):
            (loss_of(model, *part) / PARTS).backward()
        with optimizer.perturbed():
            for part in parts_of(*batch):
                (loss_of(model, *part) / PARTS).backward()
        optimizer.step()
        scheduler.step()
    return model


def train_m_sharpness() -> nn.Module:
    """Return the model trained with a perturbation for each part; m is the size of a part."""
    model = network()
    base = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    optimizer = SAM(base, rho=RHO, model=model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for batch in batches():
        optimizer.zero_grad()
        with optimizer.micro_batches():
            for part in parts_of(*batch):
                (loss_of(model, *part) / PARTS).backward()
                with optimizer.perturbed():
                    (loss_of(model, *part) / PARTS).backward()
        optimizer.step()
        scheduler.step()
    return model


if __name__ == "__main__":
    report(train())
    report(train_m_sharpness())
