"""Objectives: the loss as a function of the parameters alone."""

from flatmin.objective.empirical import EmpiricalLoss
from flatmin.objective.function import FunctionObjective, Objective

__all__ = ["EmpiricalLoss", "FunctionObjective", "Objective"]
