"""Second-order sharpness: trace and largest eigenvalues of T H T."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from flatmin._given import check_count
from flatmin._room import walking
from flatmin._types import Params
from flatmin.objective import Objective
from flatmin.scale import Scale
from flatmin.sharpness import _operator as operator
from flatmin.sharpness import _point as point
from flatmin.sharpness._lanczos import lanczos
from flatmin.sharpness.measurement import Estimate, Measurement

# Products are rounded in float64 at best, relative to the largest eigenvalue in size.
_ROUNDING = 1e-15


@dataclass(frozen=True, slots=True, kw_only=True)
class Eigenvalues(Measurement):
    """The largest eigenvalues; ``value`` is the first.

    Attributes:
        values: All that were asked for, largest first, in the unit of ``value``.
        residuals: How far each is from an eigenvalue at most, in the same unit.

    Example:
        >>> Eigenvalues(value=3.0, values=(3.0, 1.0), residuals=(0.0, 0.0)).values[1]
        1.0
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]


@walking()
def hessian_trace(
    objective: Objective,
    params: Params,
    *,
    scale: Scale = point.INVARIANT,
    samples: int = 100,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Trace of the Hessian in the geometry of a ball: the average curvature, times d.

    .. math:: \operatorname{tr}(T_w H T_w) = E_z\, z^\top T_w H T_w z, \quad z_i = \pm 1

    To second order, the mean rise in a Euclidean ball of radius ρ is ρ²/(2(d + 2)) times it. Costs
    ``samples`` Hessian-vector products, each about two gradients.

    Args:
        objective: Mean loss over a fixed data set, in nats per example for cross-entropy.
        params: The point ``w``: names to floating tensors of any shape. Read, never written.
        scale: The map ``T_w``; the default is invariant when units are rescaled.
        samples: Random sign vectors.
        generator: Source of randomness, on the device of ``params``; if not given, a fixed seed.

    Returns:
        ``value`` and its standard error, in units of the loss (for ``Identity``, per parameter
        unit squared).

    Raises:
        ValueError: If ``samples`` is below two, or the curvature is not finite.

    Example:
        The Hessian of ``x² + 2 y²`` is diag(2, 4); at (1, 3) that is scaled to diag(2, 36).

        >>> from flatmin import FunctionObjective
        >>> bowl = FunctionObjective(lambda w: (torch.tensor([1.0, 2.0]) * w["x"] ** 2).sum())
        >>> hessian_trace(bowl, {"x": torch.tensor([1.0, 3.0])}).value
        38.0

    Source:
        Hutchinson 1990, doi:10.1080/03610919008812866; scaled as in Kwon et al. 2021,
        arXiv:2102.11600.
    """
    check_count("samples", samples, 2)
    here = point.survey(objective, params, scale)
    product = operator.ScaledHessian(objective, params, scale)
    random = point.source(generator, params)
    probes = (operator.signs(params, random) for _ in range(samples))
    found = [float(torch.dot(z, product(z))) for z in probes]
    value, error = point.mean_and_error(found)
    here.check_symmetric(product.skew)
    here.warn(*operator.nothing_seen(all(sample == 0.0 for sample in found)))
    return Estimate(
        value=value,
        standard_error=error,
        samples=samples,
        hvps=samples,
        dead_fraction=here.dead_fraction,
        warnings=tuple(here.warnings),
    )


@walking()
def top_eigenvalues(
    objective: Objective,
    params: Params,
    *,
    scale: Scale = point.INVARIANT,
    k: int = 1,
    steps: int = 100,
    tolerance: float = 1e-7,
    generator: torch.Generator | None = None,
) -> Eigenvalues:
    r"""Largest eigenvalues of the Hessian in the geometry of a ball: the sharpest directions.

    .. math:: \lambda_1 \ge \dots \ge \lambda_k \text{ of } T_w H T_w

    To second order, the worst rise in a Euclidean ball of radius ρ around a minimum is ρ²λ₁/2. At
    most ``steps`` Hessian-vector products, and 8 · ``steps`` bytes of memory for each parameter.

    Args:
        objective: Mean loss over a fixed data set, in nats per example for cross-entropy.
        params: The point ``w``: names to floating tensors of any shape. Read, never written.
        scale: The map ``T_w``; the default is invariant when units are rescaled.
        k: How many. Equal eigenvalues may be found once only.
        steps: Most products; a warning tells if they did not suffice.
        tolerance: Stop when each residual is below this fraction of the largest eigenvalue.
        generator: Source of the random start, on the device of ``params``; if not given, a fixed
            seed.

    Returns:
        ``value``, the largest, and ``values``, in units of the loss (for ``Identity``, per
        parameter unit squared).

    Raises:
        ValueError: If ``k`` is not between one and the number of parameters or exceeds ``steps``,
            or the curvature is not finite.

    Example:
        The Hessian of ``x² + 2 y²`` is diag(2, 4); at (1, 3) that is scaled to diag(2, 36).

        >>> from flatmin import FunctionObjective
        >>> bowl = FunctionObjective(lambda w: (torch.tensor([1.0, 2.0]) * w["x"] ** 2).sum())
        >>> found = top_eigenvalues(bowl, {"x": torch.tensor([1.0, 3.0])}, k=2)
        >>> [round(eigenvalue, 4) for eigenvalue in found.values]
        [36.0, 2.0]

    Source:
        Lanczos 1950, doi:10.6028/jres.045.026, with full re-orthogonalization.
    """
    here = point.survey(objective, params, scale)
    dimension = sum(t.numel() for t in params.values())
    check_count("k", k, 1)
    check_count("steps", steps, 1)
    if k > min(dimension, steps):
        raise ValueError(
            f"k must be at most the number of parameters ({dimension}) and of steps "
            f"({steps}), got {k}."
        )
    random = point.source(generator, params)
    values, residuals, largest, used, missed = np.empty(0), np.empty(0), 0.0, 0, True
    product = operator.ScaledHessian(objective, params, scale)
    for matrix, length in lanczos(
        product,
        operator.gaussian(params, random),
        steps,
        fresh=lambda: operator.gaussian(params, random),
    ):
        used += 1
        eigenvalues, vectors = np.linalg.eigh(matrix)
        values = eigenvalues[::-1][:k]
        residuals = np.abs(length * vectors[-1, ::-1][:k])
        largest = np.abs(eigenvalues).max()
        # Relative to the first: at the other end there may be far larger ones, which the first
        # few steps find before any that is wanted. Below their rounding there is nothing to find.
        missed = residuals.max() > max(tolerance * abs(values[0]), _ROUNDING * largest)
        if used >= k and not missed:
            break
    here.warn(
        bool(missed),
        f"the eigenvalues are known to within {residuals.max():.1e} only after {used} steps; "
        "use more.",
    )
    here.check_resolved(float(abs(values[0])), float(largest))
    here.check_symmetric(product.skew)
    here.warn(*operator.nothing_seen(not values.any()))
    return Eigenvalues(
        value=float(values[0]),
        values=tuple(values.tolist()),
        residuals=tuple(residuals.tolist()),
        hvps=used,
        dead_fraction=here.dead_fraction,
        warnings=tuple(here.warnings),
    )
