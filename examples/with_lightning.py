"""Lightning's Trainer, automatic optimization: return the optimizer, and that is all.

Lightning calls ``step(closure)`` and the closure runs both passes. Precision "16-mixed" evaluates
its closure once only: use "bf16-mixed", or manual optimization with ``perturbed()``.
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
from task import RHO, batches, loss_of, network, report
from torch import Tensor, nn

from flatmin import SAM


class Classifier(lightning.LightningModule):
    """A module as one writes it for any optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of a batch."""
        return loss_of(self.net, *batch)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the optimizer, and a scheduler that moves with every step."""
        base = torch.optim.SGD(self.named_parameters(), lr=0.1, momentum=0.9)
        optimizer = SAM(base, rho=RHO, model=self.net)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def train() -> nn.Module:
    """Return the trained model."""
    model = Classifier()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, torch.utils.data.DataLoader(batches(), batch_size=None))
    return model.net


if __name__ == "__main__":
    report(train())
