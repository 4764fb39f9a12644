"""Text: the next character of Python's own documentation, which every Python has with it."""

from __future__ import annotations

import math
from pydoc_data import topics

import torch
from torch import Tensor, nn

from flatmin.data import TensorSet
from flatmin.train import TrainConfig

CONTEXT, WIDTH, BLOCKS, WINDOWS = 64, 64, 2, 1024
LETTERS = "\n" + "".join(chr(code) for code in range(32, 127))

config = TrainConfig(model="own", optimizer="adamw", lr=3e-3, batch_size=32)
better = "smaller"


class Transformer(nn.Module):
    """Causal blocks over characters."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(BLOCKS)
        )
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(LETTERS))
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, text: Tensor) -> Tensor:
        """Logits of the next character, [batch, letters, context]."""
        hidden = self.letters(text) + self.places.weight
        for block in self.blocks:
            hidden = block(hidden, src_mask=self.mask, is_causal=True)
        logits: Tensor = self.head(self.norm(hidden))
        return logits.transpose(1, 2)


def model() -> nn.Module:
    """A transformer with 116,576 parameters."""
    return Transformer()


def metric(outputs: Tensor, targets: Tensor) -> Tensor:
    """Bits per character."""
    return nn.functional.cross_entropy(outputs, targets) / math.log(2)


def data() -> tuple[TensorSet, TensorSet]:
    """Windows of the first four fifths to train on, and of the rest to test on."""
    text = "\n".join(topics.topics[name] for name in sorted(topics.topics))
    codes = torch.tensor([LETTERS.find(letter) for letter in text])
    codes = codes[codes >= 0]
    border = 4 * len(codes) // 5
    return _windows(codes[:border], WINDOWS), _windows(codes[border:], WINDOWS // 2)


def _windows(codes: Tensor, count: int) -> TensorSet:
    starts = torch.linspace(0, len(codes) - CONTEXT - 2, count).long()
    windows = torch.stack([codes[start : start + CONTEXT + 1] for start in starts])
    return TensorSet(windows[:, :-1], windows[:, 1:], "the topics of Python's documentation")
