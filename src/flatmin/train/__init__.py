"""Training that can be interrupted anywhere and continued with the same bits."""

from flatmin.train.checkpoint import (
    CheckpointError,
    NotWritable,
    checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from flatmin.train.config import TrainConfig
from flatmin.train.ensemble import Ensemble
from flatmin.train.evaluate import evaluate
from flatmin.train.history import Epoch
from flatmin.train.log import read_log
from flatmin.train.loop import Trained, train
from flatmin.train.stacked import ensemble_outputs, stack_networks
from flatmin.train.stops import Diverged, Interrupted, OutOfMemory

__all__ = [
    "CheckpointError",
    "Diverged",
    "Ensemble",
    "Epoch",
    "Interrupted",
    "NotWritable",
    "OutOfMemory",
    "TrainConfig",
    "Trained",
    "checkpoints",
    "ensemble_outputs",
    "evaluate",
    "load_checkpoint",
    "newest_checkpoint",
    "read_log",
    "save_checkpoint",
    "stack_networks",
    "train",
]
