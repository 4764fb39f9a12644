"""Flat minima for PyTorch: optimizers that find them, measures that rescaling cannot fool."""

from importlib import import_module
from types import ModuleType

# Neighbourhoods
from flatmin.ball import Ball

# Objectives
from flatmin.objective import (
    EmpiricalLoss,
    FiniteDifferences,
    FunctionObjective,
    GaussNewton,
    Objective,
    ShardedLoss,
)

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
from flatmin.spectral import Spectral

__version__ = "0.2.0"

# Rooms that are loaded when they are first asked for: `flatmin.sharpness` needs no second import.
_ROOMS = ("analysis", "compare", "data", "ensemble", "models", "sharpness", "symmetry", "train")


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return import_module(f"flatmin.{name}")
    raise AttributeError(f"module 'flatmin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})


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
    "FiniteDifferences",
    "FollowingLR",
    "FriendlySAM",
    "FunctionObjective",
    "GaussNewton",
    "Identity",
    "LastPart",
    "Layerwise",
    "Objective",
    "ShardedLoss",
    "Spectral",
    "WhenLarge",
    "WithProbability",
]
