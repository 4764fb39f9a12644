"""Text: a small transformer that predicts the next character of what ships with Python.

flatmin compare examples/compare/text.py --epochs 5 --worth 0.01
"""

from __future__ import annotations

import inspect
import random

import torch
from torch import Tensor, nn

from flatmin.data import TensorSet
from flatmin.train import TrainConfig

CONTEXT, WIDTH, WINDOWS = 32, 32, 1024
LETTERS = "\n" + "".join(chr(code) for code in range(32, 127))

config = TrainConfig(model="own", optimizer="adamw", lr=3e-3, batch_size=64)
better = "smaller"


class Transformer(nn.Module):
    """One causal block over characters."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        self.block = nn.TransformerEncoderLayer(WIDTH, 2, 4 * WIDTH, dropout=0.0, batch_first=True)
        self.head = nn.Linear(WIDTH, len(LETTERS))
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, text: Tensor) -> Tensor:
        """Logits of the next character, [batch, letters, context]."""
        hidden = self.letters(text) + self.places.weight
        logits: Tensor = self.head(self.block(hidden, src_mask=self.mask, is_causal=True))
        return logits.transpose(1, 2)


def model() -> nn.Module:
    """About twenty thousand parameters."""
    return Transformer()


def metric(outputs: Tensor, targets: Tensor) -> Tensor:
    """Bits per character."""
    nats = nn.functional.cross_entropy(outputs, targets)
    return nats / torch.log(torch.tensor(2.0))


def data() -> tuple[TensorSet, TensorSet]:
    """Windows of the source of Python's `random`, the first four fifths to train on."""
    text = inspect.getsource(random)
    codes = torch.tensor([LETTERS.find(letter) for letter in text])
    codes = codes[codes >= 0]
    border = 4 * len(codes) // 5
    return _windows(codes[:border], WINDOWS), _windows(codes[border:], WINDOWS // 4)


def _windows(codes: Tensor, count: int) -> TensorSet:
    starts = torch.linspace(0, len(codes) - CONTEXT - 2, count).long()
    windows = torch.stack([codes[start : start + CONTEXT + 1] for start in starts])
    return TensorSet(windows[:, :-1], windows[:, 1:], "the source of Python's random.py")
