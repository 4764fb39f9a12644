"""What a measure returns: the number, how sure it is, what it cost, and what to be wary of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A measured number.

    Attributes:
        value: The number, in units of the loss.
        gradients: Gradients of the objective that were evaluated.
        forwards: Values of the objective that were evaluated without a gradient.
        hvps: Hessian-vector products that were evaluated.
        dead_fraction: Share of the parameters at which the scale is zero, so that the measure
            cannot see them.
        warnings: Why the number may mislead, one sentence each; empty where nothing is known
            against it.

    Example:
        >>> Measurement(value=0.5, gradients=1).warnings
        ()
    """

    value: float
    gradients: int = 0
    forwards: int = 0
    hvps: int = 0
    dead_fraction: float = 0.0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharpness(Measurement):
    """How much the loss rises in a ball.

    Attributes:
        loss: Loss at the point itself.

    Example:
        >>> Sharpness(value=0.5, loss=1.0, gradients=1, forwards=1).worst_loss
        1.5
    """

    loss: float

    @property
    def worst_loss(self) -> float:
        """Loss at the worst point found, the quantity that SAM minimizes."""
        return self.loss + self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate(Measurement):
    """The mean of random samples.

    Attributes:
        standard_error: Deviation of the samples over √samples, in the unit of ``value``.
        samples: Number of samples.

    Example:
        >>> estimate = Estimate(value=2.0, standard_error=0.1, samples=100)
        >>> estimate.value - 2 * estimate.standard_error
        1.8
    """

    standard_error: float
    samples: int
