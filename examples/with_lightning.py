"""Lightning's Trainer, automatic optimization: return the optimizer, and that is all.

Lightning calls ``step(closure)`` and the closure runs both passes; what ``training_step`` logs or
counts, it logs and counts in both, unless it asks which one this is. Two settings need manual
optimization, ``InParts`` below: ``accumulate_grad_batches``, since a closure that adds to earlier
gradients is refused, and precision "16-mixed", which evaluates its closure once only.
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
from task import RHO, batches, loss_of, network, report
from torch import Tensor, nn
from torch.utils.data import DataLoader

from flatmin import SAM

PARTS = 2


class Classifier(lightning.LightningModule):
    """A module as one writes it for any optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of a batch; log the one at the weights."""
        loss = loss_of(self.net, *batch)
        if not self.optimizers().in_second_pass:
            self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the optimizer, and a scheduler that moves with every step."""
        base = torch.optim.SGD(self.named_parameters(), lr=0.1, momentum=0.9)
        optimizer = SAM(base, rho=RHO, model=self.net)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class InParts(Classifier):
    """Accumulation: each part of a batch climbs for itself (m-sharpness), then one step."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], i: int) -> None:
        """Run both passes of a part; step after the last one."""
        optimizer = self.optimizers()
        with optimizer.micro_batches():
            loss = loss_of(self.net, *batch)
            self.manual_backward(loss / PARTS)
            with optimizer.perturbed():
                self.manual_backward(loss_of(self.net, *batch) / PARTS)
        self.log("loss", loss)
        if (i + 1) % PARTS == 0:
            optimizer.step()
            optimizer.zero_grad()
            self.lr_schedulers().step()


def fit(model: Classifier, data: DataLoader[Any], **settings: Any) -> nn.Module:
    """Return the trained model."""
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"logger": False, **settings},
    )
    trainer.fit(model, data)
    return model.net


def train() -> nn.Module:
    """Return the model trained with whole batches."""
    return fit(Classifier(), DataLoader(batches(), batch_size=None))


def train_in_parts() -> nn.Module:
    """Return the model trained with batches in parts."""
    parts = [
        part
        for inputs, targets in batches()
        for part in zip(inputs.chunk(PARTS), targets.chunk(PARTS), strict=True)
    ]
    return fit(InParts(), DataLoader(parts, batch_size=None))


if __name__ == "__main__":
    report(train())
    report(train_in_parts())
