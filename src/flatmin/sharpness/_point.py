"""What every measure asks about its point: whether it can be measured, and what to be wary of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flatmin._given import check_named, check_objective, shown
from flatmin._streams import stream
from flatmin._types import Params
from flatmin.ball import Ball
from flatmin.scale import Elementwise, Scale

# The scale to measure with: exactly invariant when units are rescaled, biases included.
INVARIANT = Elementwise(eta=0.0, biases=True)

# A rise below this many roundings of the loss is mostly rounding.
_ROUNDINGS = 1000.0


@dataclass(frozen=True, slots=True)
class Point:
    """A point whose scale is known, and what has been noticed there."""

    params: Params
    scale: Scale
    dead_fraction: float
    warnings: list[str] = field(default_factory=list)
    dtype: torch.dtype | None = None
    """The coarsest type that the loss is known to pass through; its parameters have their own."""

    def warn(self, condition: bool, sentence: str) -> None:
        """Note a sentence once."""
        if condition and sentence not in self.warnings:
            self.warnings.append(sentence)

    def check_stationary(self, support: float) -> None:
        """Note a vanishing first order; a measure built on it says nothing there."""
        self.warn(
            support == 0.0,
            "the scaled gradient T g is zero at this point, so a first-order measure is zero "
            "however sharp the loss may be; look at average_sharpness or hessian_trace.",
        )

    def check_rounding(self, rise: float, loss: float) -> None:
        """Note a rise that the arithmetic cannot resolve."""
        eps, name = self._precision()
        self.warn(
            0.0 < abs(rise) < _ROUNDINGS * eps * abs(loss),
            f"the rise {rise:.1e} is near the rounding of the loss in {name}; measure in float64, "
            "or with a larger rho.",
        )

    def check_fall(self, fall: float, loss: float) -> None:
        """Note a fall that the arithmetic cannot resolve."""
        eps, name = self._precision()
        self.warn(
            0.0 < fall < _ROUNDINGS * eps * abs(loss),
            f"the loss falls by {fall:.1e} only, near its rounding in {name}; measure in float64.",
        )

    def check_resolved(self, wanted: float, largest: float) -> None:
        """Note eigenvalues that vanish beside those at the other end of the spectrum."""
        eps, name = self._precision()
        self.warn(
            wanted < _ROUNDINGS * eps * largest,
            f"the eigenvalues, {wanted:.1e} in size, are near the rounding of the products in "
            f"{name}, for there are negative ones of size {largest:.1e}; measure in float64.",
        )

    def check_symmetric(self, skew: float) -> None:
        """Note second derivatives that are not those of a function."""
        self.warn(
            skew > math.sqrt(self._precision()[0]),
            f"the curvature is not symmetric, by {skew:.1e} of its size, so some backward pass is "
            "not the derivative of what it belongs to: an operation of the network's own, or one "
            "that torch cannot differentiate twice.",
        )

    def _precision(self) -> tuple[float, str]:
        dtypes = {t.dtype for t in self.params.values()} | ({self.dtype} if self.dtype else set())
        coarsest = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)
        name = str(coarsest).removeprefix("torch.")
        if all(t.dtype != coarsest for t in self.params.values()):
            name += ", to which the network or its loss function casts"
        return torch.finfo(coarsest).eps, name

    def check_finite(self, bad: int, total: int) -> None:
        """Note trial points without a finite loss."""
        self.warn(
            bad > 0,
            f"the loss was not finite at {bad} of {total} points of the ball, so the rise has no "
            "bound that the value could show; use a smaller rho.",
        )


def survey(objective: object, params: Params, scale: Scale) -> Point:
    """Look at a point through a scale; refuse what no measure can use."""
    check_objective(objective)
    check_named(params)
    if not params:
        raise ValueError("params must name at least one tensor, got none.")
    for name, t in params.items():
        if not t.is_floating_point():
            raise TypeError(f"params must be floating tensors, got {t.dtype} for {name!r}.")
    if isinstance(scale, type) or not callable(scale):
        raise TypeError(f"scale must be a map T_w, such as Elementwise(), got {scale!r}.")
    reach = stretch(params, scale, {name: torch.ones_like(t) for name, t in params.items()})
    dead = sum(int((t == 0).sum()) for t in reach.values())
    fraction = dead / max(1, sum(t.numel() for t in params.values()))
    point = Point(params, scale, fraction, dtype=getattr(objective, "dtype", None))
    point.warn(
        dead > 0,
        f"{dead} parameters ({point.dead_fraction:.2%}) are held still by the scale, which is zero "
        "there, so the measure cannot see them; Elementwise(eta=...) moves them, at the price of "
        "exact invariance.",
    )
    halves = {t.dtype for t in params.values()} & {torch.float16, torch.bfloat16}
    point.warn(
        bool(halves),
        "parameters of two or three digits round a small shift away; measure a float32 or float64 "
        "copy, as in copy.deepcopy(model).float().",
    )
    return point


def stretch(params: Params, scale: Scale, vector: Params) -> dict[str, Tensor]:
    """Give ``T_w vector``."""
    return Ball(1.0, scale=scale).stretch(params, vector)


def check_ball(ball: Ball) -> None:
    """Refuse what is no ball, and that of an ensemble."""
    if not isinstance(ball, Ball):
        raise TypeError(f"ball must be a flatmin.Ball, such as Ball(0.05), got {shown(ball)}.")
    if isinstance(ball.rho, Tensor) and ball.rho.ndim:
        raise ValueError(
            "a measure takes one network and one radius, got rho of shape "
            f"{tuple(ball.rho.shape)}; measure the members one by one."
        )


def finite(loss: Tensor) -> float:
    """Give the loss at the point as a number; refuse one that is not finite."""
    number = loss.item()
    if not math.isfinite(number):
        raise ValueError(
            f"the loss at params must be finite, got {number}; a diverged network has no sharpness."
        )
    return number


def finite_support(support: Tensor) -> float:
    """Give the norm of the scaled gradient as a number; refuse one that is not finite."""
    number = support.item()
    if not math.isfinite(number):
        raise ValueError(
            f"the gradient at params must be finite, got a scaled norm of {number}; measure in "
            "float64, or look for a square root or logarithm at zero."
        )
    return number


def source(generator: torch.Generator | None, params: Params) -> torch.Generator:
    """Give the caller's generator, or one that is the same at each call and nobody else's.

    Of the seed 0 it would not do: a start drawn under ``torch.manual_seed(0)`` holds the same
    numbers, so that a random direction would point along the weights.

    Raises:
        TypeError: If it is a seed, say.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, got {generator!r}; for a seed, write "
            "torch.Generator().manual_seed(seed)."
        )
    if generator is not None:
        return generator
    return stream("sharpness", device=next(iter(params.values())).device)


def mean_and_error(samples: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error; infinite, not NaN, where a sample is not finite."""
    if not all(math.isfinite(sample) for sample in samples):
        return math.inf, math.inf
    n = len(samples)
    mean = math.fsum(samples) / n
    return mean, math.sqrt(math.fsum((s - mean) ** 2 for s in samples) / (n - 1) / n)
