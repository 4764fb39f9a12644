"""Optimizers that look for flat minima, around any torch optimizer."""

from flatmin.optim._report import StepReport
from flatmin.optim.sam import ASAM, SAM
from flatmin.optim.select import perturb_only
from flatmin.optim.when import Every, When

__all__ = ["ASAM", "SAM", "Every", "StepReport", "When", "perturb_only"]
