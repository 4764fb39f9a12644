"""Measures of sharpness by name, and their spread over rescaled copies of the network."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from flatmin._streams import stream
from flatmin._types import Params
from flatmin.analysis.subject import Subject
from flatmin.ball import Ball
from flatmin.objective import EmpiricalLoss, GaussNewton
from flatmin.scale import Scale
from flatmin.sharpness import (
    Estimate,
    Measurement,
    average_sharpness,
    critical_sharpness,
    gradient_norm,
    hessian_trace,
    one_step_sharpness,
    rounding_rise,
    top_eigenvalues,
    worst_case_sharpness,
)
from flatmin.symmetry import Mixings, Scalings, certify


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How thoroughly to measure.

    Attributes:
        steps: Trial points of a climb.
        samples: Random points of an average, random vectors of a trace.
        seed: Of both; the same for all copies.
        noise: Radius of the average for each parameter, over the ball's rho: random points need a
            larger ball than the worst one, or they show no more than rounding and chance.
    """

    steps: int = 10
    samples: int = 10
    seed: int = 0
    noise: float = 0.2

    def generator(self, name: str, params: Params) -> torch.Generator:
        """A fresh source of randomness for a measure, where the parameters are."""
        return stream("measure", name, self.seed, device=next(iter(params.values())).device)


def inscribed_box(ball: Ball, params: Params) -> Ball:
    """The largest box in a ball: the same length for each coordinate, its corners on the edge.

    Example:
        >>> inscribed_box(Ball(1.0), {"x": torch.zeros(4)}).rho
        0.5
    """
    dimension = sum(t.numel() for t in params.values())
    return replace(ball, rho=ball.rho / dimension ** (1.0 / ball.p), p=math.inf)


def average_ball(ball: Ball, params: Params, noise: float) -> Ball:
    """The ball to average over: in it each coordinate moves by about ``noise`` times rho.

    Example:
        >>> average_ball(Ball(0.5), {"x": torch.zeros(16)}, 0.2).rho
        0.4
    """
    dimension = sum(t.numel() for t in params.values())
    return replace(ball, rho=ball.rho * noise * dimension ** (1.0 / ball.p))


def measure(name: str, objective: EmpiricalLoss, ball: Ball, effort: Effort) -> Measurement:
    """Measure at the network's own parameters.

    Args:
        name: One of ``MEASURES``.
        objective: The loss.
        ball: The neighbourhood; of the derivatives, its scale and order.
        effort: How thoroughly.

    Returns:
        The number with its cost.

    Raises:
        ValueError: If there is no such measure, nothing can move, or the loss or its gradient is
            not finite.
    """
    w = objective.params
    if not w:
        raise ValueError("the network has no parameter with requires_grad, so nothing can move.")
    random, scale = effort.generator(name, w), ball.scale
    match name:
        case "one-step":
            return one_step_sharpness(objective, w, ball)
        case "worst-case":
            return worst_case_sharpness(objective, w, ball, steps=effort.steps, generator=random)
        case "worst-case-box":
            box = inscribed_box(ball, w)
            return worst_case_sharpness(objective, w, box, steps=effort.steps, generator=random)
        case "average":
            roomy = average_ball(ball, w, effort.noise)
            return average_sharpness(objective, w, roomy, samples=effort.samples, generator=random)
        case "gradient-norm":
            return gradient_norm(objective, w, scale=scale, p=ball.p)
        case "trace":
            return hessian_trace(
                objective, w, scale=scale, samples=effort.samples, generator=random
            )
        case "top-eigenvalue":
            return top_eigenvalues(objective, w, scale=scale, tolerance=1e-4, generator=random)
        case "gauss-newton":
            return top_eigenvalues(
                GaussNewton(objective), w, scale=scale, tolerance=1e-4, generator=random
            )
        case "rounding-8-bit" | "rounding-4-bit":
            return rounding_rise(objective, w, bits=int(name[9]))
        case "critical":
            return critical_sharpness(objective, w, scale=scale)
    raise ValueError(f"there is no measure {name!r}; the measures are {', '.join(MEASURES)}.")


MEASURES = {
    "one-step": "rise at the edge of the ball, along the gradient",
    "worst-case": "largest rise found in the ball",
    "worst-case-box": "the same in the box inscribed in the ball, p = ∞",
    "average": "mean rise where each parameter moves by about rho / 5 times T",
    "gradient-norm": "dual norm of T g: the slope that the ball sees",
    "trace": "trace of T H T",
    "top-eigenvalue": "largest eigenvalue of T H T",
    "gauss-newton": "largest eigenvalue of T G T, of the Gauss–Newton matrix",
    "critical": "2 / the longest step along -T T g that does not raise the loss",
    "rounding-8-bit": "rise when weights are rounded to 8 bits, row by row; knows no ball",
    "rounding-4-bit": "the same to 4 bits",
}


@dataclass(frozen=True, slots=True)
class Copies:
    """Rescaled copies to measure as well.

    Attributes:
        scalings: What may be scaled; None if that is not known.
        number: How many copies, each a scaling of the one before; 0 for none.
        seed: Of the factors.
        mixings: What may be mixed by matrices besides; None if that is not known.
    """

    scalings: Scalings | None
    number: int
    seed: int
    mixings: Mixings | None = None

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return self.scalings is not None and self.number > 0


def measured_row(
    name: str, subject: Subject, ball: Ball, effort: Effort, copies: Copies
) -> dict[str, Any]:
    """Measure a network and its rescaled copies.

    Args:
        name: One of ``MEASURES``.
        subject: Network and data.
        ball: The neighbourhood.
        effort: How thoroughly.
        copies: On which copies.

    Returns:
        Plain values for JSON: None where a number is not finite or was not asked for.
    """
    start, first = time.perf_counter(), measure(name, subject.objective(), ball, effort)
    seconds = time.perf_counter() - start
    row: dict[str, Any] = {
        "measure": name,
        "value": _finite(first.value),
        "standard_error": _finite(first.standard_error) if isinstance(first, Estimate) else None,
        "gradients": first.gradients,
        "forwards": first.forwards,
        "hvps": first.hvps,
        "seconds": round(seconds, 3),
        "warnings": list(first.warnings),
        "spread": None,
        "verdict": None,
        "outputs_moved": None,
        "mixed_spread": None,
    }
    if copies.any:
        row |= _certified(name, subject, ball, effort, copies)
    return row


def _certified(
    name: str, subject: Subject, ball: Ball, effort: Effort, copies: Copies
) -> dict[str, Any]:
    def value(network: nn.Module) -> float:
        return measure(name, subject.objective(network), ball, effort).value

    inputs = subject.batches[0][0]
    try:
        certificate = certify(
            value,
            subject.model,
            inputs if isinstance(inputs, Tensor | dict) else tuple(inputs),
            scalings=copies.scalings,
            mixings=copies.mixings,
            num_scalings=copies.number,
            generator=stream("rescaled copies", copies.seed),
        )
    except ValueError as error:  # a copy whose numbers overflow, where the network's own did not
        return {"verdict": f"a copy could not be measured: {error}"}
    return {
        "spread": _finite(certificate.spread),
        "verdict": certificate.verdict,
        "outputs_moved": _finite(certificate.deviation),
        "mixed_spread": _finite(certificate.mixed_spread) if certificate.mixed_values else None,
    }


def scale_name(scale: Scale) -> str:
    """A scale in a few signs."""
    name = type(scale).__name__
    if name != "Elementwise":
        return {"Identity": "T = 1", "Filterwise": "T = |filter|", "Layerwise": "T = |layer|"}[name]
    eta, biases = getattr(scale, "eta", 0.0), getattr(scale, "biases", True)
    return f"T = |w|{f' + {eta:g}' if eta else ''}{'' if biases else ', biases not scaled'}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
