"""A Hugging Face model in its own Trainer: a loop of one's own, that asks for its optimizer.

    flatmin compare examples/compare/trainer.py --arms sam gradients --epochs 3

The model is a small BERT from its configuration, so nothing is downloaded; it learns whether a
sequence holds two pairs of equal neighbors.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from transformers.trainer_utils import set_seed

lr = 1e-3
better = "larger"

BATCH, LENGTH, LETTERS = 16, 8, 6


class SharpTrainer(Trainer):
    """A Trainer whose step has a second pass, where the optimizer has one."""

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the passes; return the loss of the first."""
        loss: Tensor = super().training_step(*args, **kwargs)
        optimizer = self.optimizer.optimizer
        if hasattr(optimizer, "perturbed"):
            with optimizer.perturbed():
                super().training_step(*args, **kwargs)
        return loss


def run(arm: Any, seed: int, budget: int) -> dict[str, float]:
    """Train for so many epochs; accuracy on the test part, and on the part to choose by."""
    train, held, test = (_examples(count, number) for number, count in enumerate((160, 64, 128)))
    set_seed(seed)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=LETTERS,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=LENGTH,
        )
    )
    steps = budget * len(train) // BATCH
    base = torch.optim.AdamW(model.named_parameters(), lr=arm.lr)
    optimizer = arm.wrap(base, model, steps=steps)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            num_train_epochs=budget,
            per_device_train_batch_size=BATCH,
            max_grad_norm=0.0,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=seed,
        )
        trainer = SharpTrainer(
            model, settings, train_dataset=train, optimizers=(optimizer, schedule)
        )
        trainer.train()
    return {"accuracy": _accuracy(model, test), "validation": _accuracy(model, held)}


def _examples(count: int, number: int) -> list[dict[str, Tensor]]:
    source = torch.Generator().manual_seed(number)
    words = torch.randint(LETTERS, (count, LENGTH), generator=source)
    labels = (words[:, 1:] == words[:, :-1]).sum(dim=1) >= 2
    return [
        {"input_ids": word, "labels": label}
        for word, label in zip(words, labels.long(), strict=True)
    ]


def _accuracy(model: torch.nn.Module, examples: list[dict[str, Tensor]]) -> float:
    model.eval()
    words = torch.stack([example["input_ids"] for example in examples])
    labels = torch.stack([example["labels"] for example in examples])
    with torch.no_grad():
        found = model(input_ids=words).logits.argmax(dim=1)
    return 100 * (found == labels).float().mean().item()
