"""Measures of sharpness: pure functions of an objective, a point, and a ball or a scale."""

# The geometry of Adam
from flatmin.sharpness.adam_scale import AdamScale

# How far the loss rises in a ball
from flatmin.sharpness.ascent import one_step_sharpness, worst_case_sharpness
from flatmin.sharpness.average import AverageSharpness, average_sharpness

# How long a step may be
from flatmin.sharpness.critical import CriticalSharpness, critical_sharpness

# Derivatives in the geometry of a ball
from flatmin.sharpness.curvature import Eigenvalues, hessian_trace, top_eigenvalues
from flatmin.sharpness.gradient import gradient_norm

# What measures return
from flatmin.sharpness.measurement import Estimate, Measurement, Sharpness

# A measure on parts: of the data, of the network
from flatmin.sharpness.micro import m_sharpness
from flatmin.sharpness.per_layer import per_layer

# What a network survives
from flatmin.sharpness.rounding import rounding_rise

# How curvature is distributed
from flatmin.sharpness.spectrum import SpectralDensity, spectral_density

__all__ = [
    "AdamScale",
    "AverageSharpness",
    "CriticalSharpness",
    "Eigenvalues",
    "Estimate",
    "Measurement",
    "Sharpness",
    "SpectralDensity",
    "average_sharpness",
    "critical_sharpness",
    "gradient_norm",
    "hessian_trace",
    "m_sharpness",
    "one_step_sharpness",
    "per_layer",
    "rounding_rise",
    "spectral_density",
    "top_eigenvalues",
    "worst_case_sharpness",
]
