"""Measures of sharpness: pure functions of an objective, a point and a ball."""

from flatmin.sharpness.ascent import Sharpness, one_step_sharpness

__all__ = ["Sharpness", "one_step_sharpness"]
