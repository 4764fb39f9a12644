"""The distribution of all eigenvalues of the scaled Hessian, with how sure it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from flatmin._streams import stream
from flatmin.objective import EmpiricalLoss
from flatmin.scale import Scale
from flatmin.sharpness import SpectralDensity, spectral_density

_POINTS = 400
_WIDTH = 0.01  # of the smoothing curve, as a share of the whole range


def spectrum(
    objective: EmpiricalLoss, scale: Scale, *, samples: int = 10, steps: int = 50, seed: int = 0
) -> dict[str, Any]:
    r"""Smoothed density of the eigenvalues of T H T, with its standard error, as plain values.

    .. math:: \phi(\lambda) = \frac{1}{n} \sum_k \phi_k(\lambda), \quad
        e(\lambda)^2 = \frac{1}{n (n - 1)} \sum_k (\phi_k(\lambda) - \phi(\lambda))^2

    where each random vector k has a density of its own.

    Args:
        objective: The loss.
        scale: The map ``T_w``.
        samples: Random vectors n, at least 2.
        steps: Hessian-vector products for each.
        seed: Of the vectors.

    Returns:
        ``eigenvalues``, at which ``density`` and ``error`` are, in shares of all per unit of the
        loss; ``width`` of the smoothing curve; ``trace`` with ``trace_error``; ``dimension``.

    Source:
        Ghorbani, Krishnan and Xiao 2019, arXiv:1901.10159.
    """
    w = objective.params
    generator = stream("spectrum", seed, device=next(iter(w.values())).device)
    found = spectral_density(
        objective, w, scale=scale, samples=samples, steps=steps, generator=generator
    )
    low, high = min(found.nodes), max(found.nodes)
    width = _WIDTH * (high - low) or abs(high) * _WIDTH or 1.0
    at = np.linspace(low - 4 * width, high + 4 * width, _POINTS)
    each = np.stack([one.density(at, width=width) for one in _one_by_one(found)])
    error = each.std(0, ddof=1) / np.sqrt(samples)
    return {
        "eigenvalues": at.tolist(),
        "density": each.mean(0).tolist(),
        "error": error.tolist(),
        "width": width,
        "lowest": low,
        "highest": high,
        "trace": found.value,
        "trace_error": found.standard_error,
        "dimension": found.dimension,
        "samples": samples,
        "warnings": list(found.warnings),
    }


def _one_by_one(found: SpectralDensity) -> list[SpectralDensity]:
    """The density of each random vector."""
    nodes, weights = np.array(found.nodes), np.array(found.weights) * found.samples
    # The weights of a vector sum to one: so many whole vectors lie before a node.
    before = np.cumsum(weights) - weights
    owner = np.minimum((before + 1e-9).astype(int), found.samples - 1)
    return [
        replace(found, nodes=tuple(nodes[owner == k]), weights=tuple(weights[owner == k]))
        for k in range(found.samples)
    ]
