"""Handwritten digits as a table: 1,797 rows of 64 numbers, ten classes."""

from __future__ import annotations

from sklearn.datasets import load_digits
from torch import nn

from flatmin.data import TensorSet
from flatmin.experiments.others._table import CONFIG, perceptron, split

config = CONFIG


def model() -> nn.Module:
    """A perceptron with 8,970 parameters."""
    return perceptron(64, 10)


def data(seed: int) -> tuple[TensorSet, TensorSet]:
    """A split of the seed's own."""
    inputs, targets = load_digits(return_X_y=True)
    return split(inputs, targets, "digits of scikit-learn", seed)
