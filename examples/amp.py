"""Mixed precision in float16: the ordinary loop of ``GradScaler`` with one block in it.

The direction of the climb does not depend on the scale of the gradient, so nothing is unscaled
between the passes. Clipping comes where it always does: after ``unscale_``, before ``step``.
"""

from __future__ import annotations

import torch
from task import RHO, batches, loss_of, network, report
from torch import nn

from flatmin import SAM


def train(*, half: bool = True, clip: float = 10.0) -> nn.Module:
    """Return the trained model; without ``half``, the same loop in float32."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = network().to(device)
    base = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    optimizer = SAM(base, rho=RHO, model=model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**12, enabled=half)

    for batch in batches():
        inputs, targets = (tensor.to(device) for tensor in batch)
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16, enabled=half):
            loss = loss_of(model, inputs, targets)
        scaler.scale(loss).backward()
        with optimizer.perturbed():
            with torch.autocast(device, torch.float16, enabled=half):
                loss = loss_of(model, inputs, targets)
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    return model.cpu()


if __name__ == "__main__":
    report(train())
