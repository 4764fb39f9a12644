"""Objectives: the loss as a function of the parameters alone."""

from flatmin.objective.empirical import EmpiricalLoss
from flatmin.objective.function import FunctionObjective, Objective
from flatmin.objective.gauss_newton import GaussNewton

__all__ = ["EmpiricalLoss", "FunctionObjective", "GaussNewton", "Objective"]
