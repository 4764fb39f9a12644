"""Breast cancer: 569 rows of 30 measurements, two diagnoses."""

from __future__ import annotations

from sklearn.datasets import load_breast_cancer
from torch import nn

from flatmin.data import TensorSet
from flatmin.experiments.others._table import CONFIG, perceptron, split

config = CONFIG


def model() -> nn.Module:
    """A perceptron with 6,274 parameters."""
    return perceptron(30, 2)


def data(seed: int) -> tuple[TensorSet, TensorSet]:
    """A split of the seed's own."""
    inputs, targets = load_breast_cancer(return_X_y=True)
    return split(inputs, targets, "breast cancer of scikit-learn", seed)
