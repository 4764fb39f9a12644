"""The Trainer of transformers: one method to override, since it steps without a closure.

With ``gradient_accumulation_steps`` each part of a batch climbs for itself (m-sharpness), and the
step is made of the sum.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from task import RHO, batches, loss_of, network, report
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainingArguments

from flatmin import SAM


class SharpTrainer(Trainer):
    """A Trainer whose step has a second pass at the perturbed point."""

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run both passes; return the loss of the first."""
        optimizer = self.optimizer.optimizer
        with optimizer.micro_batches():
            loss: Tensor = super().training_step(*args, **kwargs)
            with optimizer.perturbed():
                super().training_step(*args, **kwargs)
        return loss


class Classifier(nn.Module):
    """A model in the form that the Trainer expects: it returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss under the name that the Trainer looks for."""
        return {"loss": loss_of(self.net, inputs, labels)}


class Examples(IterableDataset):  # type: ignore[type-arg]
    """The examples of all batches, in order."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for inputs, targets in batches():
            for x, y in zip(inputs, targets, strict=True):
                yield {"inputs": x, "labels": y}


def train(parts: int = 1) -> nn.Module:
    """Return the model trained with each batch in so many parts."""
    model = Classifier()
    base = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    optimizer = SAM(base, rho=RHO, model=model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=12,
            per_device_train_batch_size=8 // parts,
            gradient_accumulation_steps=parts,
            max_grad_norm=0.0,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = SharpTrainer(
            model, settings, train_dataset=Examples(), optimizers=(optimizer, scheduler)
        )
        trainer.train()
    return model.net


if __name__ == "__main__":
    report(train())
    report(train(parts=2))
