"""Optimizers that look for flat minima, around any torch optimizer."""

from flatmin.optim._report import StepReport
from flatmin.optim.sam import ASAM, SAM

__all__ = ["ASAM", "SAM", "StepReport"]
