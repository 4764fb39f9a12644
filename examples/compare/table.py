"""A table: scikit-learn's breast cancer, a multilayer perceptron, and a split of its own a seed.

    flatmin compare examples/compare/table.py --seeds 20 --epochs 20

The splits overlap, so the intervals are widened for it.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

from flatmin.data import TensorSet
from flatmin.train import TrainConfig

config = TrainConfig(model="own", optimizer="adamw", lr=3e-3, batch_size=32)


def model() -> nn.Module:
    """One hidden layer of 64 units."""
    return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 2))


def data(seed: int) -> tuple[TensorSet, TensorSet]:
    """Four fifths of the 569 patients to train on, and a fifth to test on; scaled by the former."""
    raw, diagnosis = load_breast_cancer(return_X_y=True)
    inputs, targets = torch.tensor(raw, dtype=torch.float32), torch.tensor(diagnosis)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    train, test = order[114:], order[:114]
    inputs = (inputs - inputs[train].mean(dim=0)) / inputs[train].std(dim=0)
    sets = (TensorSet(inputs[part], targets[part], "breast cancer") for part in (train, test))
    return next(sets), next(sets)
