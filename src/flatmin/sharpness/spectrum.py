"""Second-order sharpness: the distribution of all eigenvalues of T H T."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from flatmin._given import check_count
from flatmin._room import walking
from flatmin._types import Params
from flatmin.objective import Objective
from flatmin.scale import Scale
from flatmin.sharpness import _operator as operator
from flatmin.sharpness import _point as point
from flatmin.sharpness._lanczos import lanczos
from flatmin.sharpness.measurement import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectralDensity(Estimate):
    """A spectrum as weighted points; ``value`` is the trace, the sum of all eigenvalues.

    Attributes:
        nodes: Where eigenvalues are, in the unit of ``value``.
        weights: Which share of them; they sum to one.
        dimension: How many eigenvalues there are.

    Example:
        Half of the eigenvalues are 0 and half are 2; smoothed, the density at 0 is half a normal
        density's peak.

        >>> spectrum = SpectralDensity(value=4.0, standard_error=0.0, samples=1, nodes=(0.0, 2.0),
        ...     weights=(0.5, 0.5), dimension=4)
        >>> round(float(spectrum.density(0.0, width=0.1)) * 0.1, 4)
        0.1995
    """

    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    dimension: int

    def density(self, at: ArrayLike, *, width: float) -> NDArray[np.float64]:
        """Share of eigenvalues per unit, each smoothed to a normal curve.

        Args:
            at: Where to evaluate, in the unit of ``value``; any shape.
            width: Standard deviation of the curve, in the same unit.

        Returns:
            Values of the shape of ``at``, which integrate to one.
        """
        distance = (np.asarray(at, dtype=float)[..., None] - np.asarray(self.nodes)) / width
        curves = np.exp(-0.5 * distance**2) / (width * math.sqrt(2.0 * math.pi))
        density: NDArray[np.float64] = curves @ np.asarray(self.weights)
        return density


@walking()
def spectral_density(
    objective: Objective,
    params: Params,
    *,
    scale: Scale = point.INVARIANT,
    samples: int = 10,
    steps: int = 50,
    generator: torch.Generator | None = None,
) -> SpectralDensity:
    r"""Distribution of all eigenvalues of the Hessian in the geometry of a ball.

    .. math:: \frac{1}{d} \sum_i \delta(\lambda - \lambda_i)
        \approx E_z \sum_j w_j(z)\, \delta(\lambda - \theta_j(z))

    Nodes θ and weights w are those of Gaussian quadrature for a random z, from a Lanczos run: each
    run reproduces the first 2 · ``steps`` moments of z's own spectrum. Costs ``samples · steps``
    Hessian-vector products.

    Args:
        objective: Mean loss over a fixed data set, in nats per example for cross-entropy.
        params: The point ``w``: names to floating tensors of any shape. Read, never written.
        scale: The map ``T_w``; the default is invariant when units are rescaled.
        samples: Random sign vectors z.
        steps: Nodes for each.
        generator: Source of randomness, on the device of ``params``; if not given, a fixed seed.

    Returns:
        Nodes and weights, and as ``value`` the trace they imply with its standard error, in units
        of the loss (for ``Identity``, per parameter unit squared).

    Raises:
        ValueError: If ``samples`` is below two or ``steps`` below one, or the curvature is not
            finite.

    Example:
        The Hessian of ``x² + 2 y²`` is diag(2, 4): two nodes of equal weight.

        >>> from flatmin import FunctionObjective, Identity
        >>> bowl = FunctionObjective(lambda w: (torch.tensor([1.0, 2.0]) * w["x"] ** 2).sum())
        >>> found = spectral_density(bowl, {"x": torch.ones(2)}, scale=Identity(), samples=2)
        >>> [round(node, 6) for node in found.nodes[:2]], round(found.value, 6)
        ([2.0, 4.0], 6.0)

    Source:
        Ubaru, Chen and Saad 2017, doi:10.1137/16M1104974; Ghorbani, Krishnan and Xiao 2019,
        arXiv:1901.10159.
    """
    check_count("samples", samples, 2)
    check_count("steps", steps, 1)
    here = point.survey(objective, params, scale)
    product = operator.ScaledHessian(objective, params, scale)
    random = point.source(generator, params)
    dimension = sum(t.numel() for t in params.values())
    nodes: list[float] = []
    weights: list[float] = []
    traces = []
    for _ in range(samples):
        *_, (matrix, _) = lanczos(product, operator.signs(params, random), steps)
        theta, vectors = np.linalg.eigh(matrix)
        weight = vectors[0] ** 2
        traces.append(dimension * float(theta @ weight))
        nodes += theta.tolist()
        weights += (weight / samples).tolist()
    value, error = point.mean_and_error(traces)
    here.check_symmetric(product.skew)
    here.warn(*operator.nothing_seen(not any(nodes)))
    return SpectralDensity(
        value=value,
        standard_error=error,
        samples=samples,
        nodes=tuple(nodes),
        weights=tuple(weights),
        dimension=dimension,
        hvps=len(nodes),
        dead_fraction=here.dead_fraction,
        warnings=tuple(here.warnings),
    )
