"""A radius that goes with the learning rate."""

from __future__ import annotations

from dataclasses import dataclass

from flatmin._given import make_plain
from flatmin.scale import check_radius


@dataclass(frozen=True, slots=True)
class FollowingLR:
    r"""A radius between two values, where the learning rate is between two others.

    .. math:: \rho_t = \rho_{\min} + (\rho_{\max} - \rho_{\min})
        \frac{\alpha_t - \alpha_{\min}}{\alpha_{\max} - \alpha_{\min}}

    with the rate α of each group as it is in the step, whoever sets it; beyond its ends the radius
    stays at its own. Give it in place of ``rho``. The groups hold ``high`` as ``sam_rho``; a group
    with a ``sam_rho`` of its own has the same course in proportion.

    Args:
        low: Radius at the rate ``floor``.
        high: Radius at the rate ``peak``, above 0.
        peak: The largest learning rate of the training.
        floor: The smallest one.

    Raises:
        TypeError: If one is no number.
        ValueError: If one is out of range.

    Example:
        >>> rule = FollowingLR(0.1, 0.5, peak=0.2)
        >>> [round(rule.at(lr), 3) for lr in (0.2, 0.1, 0.0)]
        [0.5, 0.3, 0.1]

    Source:
        Zhuang et al. 2022, arXiv:2203.08065, algorithm 1.
    """

    low: float
    high: float
    peak: float
    floor: float = 0.0

    def __post_init__(self) -> None:
        make_plain(self)
        for name in ("low", "high", "peak", "floor"):
            check_radius(name, getattr(self, name))
        if not self.low <= self.high or not self.high > 0:
            raise ValueError(
                f"high must be above 0 and at least low, got low={self.low}, high={self.high}."
            )
        if not self.floor < self.peak:
            raise ValueError(
                f"peak must be above floor, got floor={self.floor}, peak={self.peak}; for a rate "
                "that never changes give rho as a number."
            )

    def at(self, lr: float) -> float:
        """Give the radius.

        Args:
            lr: The learning rate of a step.

        Returns:
            The radius, from ``low`` to ``high``.
        """
        part = (lr - self.floor) / (self.peak - self.floor)
        return self.low + (self.high - self.low) * min(max(part, 0.0), 1.0)
