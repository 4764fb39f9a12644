"""Objectives: the loss as a function of the parameters alone."""

from flatmin.objective.empirical import EmpiricalLoss
from flatmin.objective.finite_differences import FiniteDifferences
from flatmin.objective.function import FunctionObjective, Objective
from flatmin.objective.gauss_newton import GaussNewton
from flatmin.objective.sharded import ShardedLoss

__all__ = [
    "EmpiricalLoss",
    "FiniteDifferences",
    "FunctionObjective",
    "GaussNewton",
    "Objective",
    "ShardedLoss",
]
