"""Flat minima for PyTorch: optimizers that find them, measures that rescaling cannot fool."""

# Neighbourhoods
from flatmin.ball import Ball

# Objectives
from flatmin.objective import EmpiricalLoss, FunctionObjective, Objective

# Optimizers
from flatmin.optim.sam import ASAM, SAM
from flatmin.scale import Elementwise, Filterwise, Identity, Layerwise

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
