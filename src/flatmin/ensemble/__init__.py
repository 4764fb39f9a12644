"""Many small networks trained at once, each as if it were alone."""

from flatmin.ensemble.ensemble import Ensemble
from flatmin.ensemble.stacked import ensemble_outputs, stack_networks

__all__ = ["Ensemble", "ensemble_outputs", "stack_networks"]
