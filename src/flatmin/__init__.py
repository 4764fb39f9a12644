"""Flat minima for PyTorch: optimizers that find them, measures that rescaling cannot fool."""

# Neighbourhoods
from flatmin.ball import Ball

# Objectives
from flatmin.objective import EmpiricalLoss, FunctionObjective, Objective

# Optimizers
from flatmin.optim.async_sam import AsyncSAM
from flatmin.optim.friendly import FriendlySAM
from flatmin.optim.gsam import GSAM
from flatmin.optim.msam import MSAM
from flatmin.optim.radius import FollowingLR
from flatmin.optim.sam import ASAM, SAM
from flatmin.optim.ssam import SSAM
from flatmin.optim.when import Every, LastPart, WithProbability
from flatmin.optim.when_large import WhenLarge
from flatmin.optim.wsam import WSAM
from flatmin.scale import Elementwise, Filterwise, Identity, Layerwise

__version__ = "0.1.0"

__all__ = [
    "ASAM",
    "GSAM",
    "MSAM",
    "SAM",
    "SSAM",
    "WSAM",
    "AsyncSAM",
    "Ball",
    "Elementwise",
    "EmpiricalLoss",
    "Every",
    "Filterwise",
    "FollowingLR",
    "FriendlySAM",
    "FunctionObjective",
    "Identity",
    "LastPart",
    "Layerwise",
    "Objective",
    "WhenLarge",
    "WithProbability",
]
