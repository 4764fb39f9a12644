"""Wine: 178 rows of 13 measurements, three growers."""

from __future__ import annotations

from sklearn.datasets import load_wine
from torch import nn

from flatmin.data import TensorSet
from flatmin.experiments.others._table import CONFIG, perceptron, split

config = CONFIG


def model() -> nn.Module:
    """A perceptron with 5,251 parameters."""
    return perceptron(13, 3)


def data(seed: int) -> tuple[TensorSet, TensorSet]:
    """A split of the seed's own."""
    inputs, targets = load_wine(return_X_y=True)
    return split(inputs, targets, "wine of scikit-learn", seed)
