"""Training that can be interrupted anywhere and continued with the same bits."""

import importlib
import warnings
from typing import Any

from flatmin.train.checkpoint import (
    CheckpointError,
    NotWritable,
    checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from flatmin.train.config import TrainConfig
from flatmin.train.evaluate import evaluate
from flatmin.train.history import Epoch
from flatmin.train.log import read_log
from flatmin.train.loop import Trained, train
from flatmin.train.stops import Diverged, Interrupted, OutOfMemory

__all__ = [
    "CheckpointError",
    "Diverged",
    "Epoch",
    "Interrupted",
    "NotWritable",
    "OutOfMemory",
    "TrainConfig",
    "Trained",
    "checkpoints",
    "evaluate",
    "load_checkpoint",
    "newest_checkpoint",
    "read_log",
    "save_checkpoint",
    "train",
]

_NOW_IN_ENSEMBLE = ("Ensemble", "ensemble_outputs", "stack_networks")


def __getattr__(name: str) -> Any:
    """Give what has moved to ``flatmin.ensemble``, and say so; to be removed with a release."""
    if name not in _NOW_IN_ENSEMBLE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"flatmin.train.{name} has moved and leaves this place with the next release: "
        f"from flatmin.ensemble import {name}",
        DeprecationWarning,
        stacklevel=2,
    )
    # Ensembles stand beside training, and neither imports the other but here.
    return getattr(importlib.import_module("flatmin.ensemble"), name)
