"""Flat minima for PyTorch: optimizers that find them, measures that rescaling cannot fool."""

# Neighbourhoods
from flatmin.ball import Ball, Elementwise, Filterwise, Identity, Layerwise

# Objectives
from flatmin.objective import EmpiricalLoss, FunctionObjective, Objective

# Optimizers
from flatmin.optim.sam import ASAM, SAM

__version__ = "0.1.0"

__all__ = [
    "ASAM",
    "SAM",
    "Ball",
    "Elementwise",
    "EmpiricalLoss",
    "Filterwise",
    "FunctionObjective",
    "Identity",
    "Layerwise",
    "Objective",
]
