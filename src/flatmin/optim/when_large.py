"""When to perturb: where the gradient is large beside those of the steps before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from flatmin._given import make_plain
from flatmin.optim.when import Moment, When, check_count


@dataclass(frozen=True, slots=True)
class WhenLarge(When):
    r"""A step perturbs where the squared norm of its gradient is large, as AE-SAM does.

    With running mean and variance of :math:`\|g\|^2`, step t of T is due where

    .. math:: \|g_t\|_2^2 \ge \mu_t + c_t \sigma_t, \quad
        c_t = \tfrac tT \lambda_1 + (1 - \tfrac tT) \lambda_2
    .. math:: \mu_t = \delta \mu_{t-1} + (1 - \delta) \|g_t\|_2^2, \quad
        \sigma_t^2 = \delta \sigma_{t-1}^2 + (1 - \delta)(\|g_t\|_2^2 - \mu_t)^2

    which perturbs rarely at first and often in the end. A loop asks ``optimizer.due`` after the
    first pass. Under DDP the first pass has to be synced, so that all processes see one gradient.
    The norms are compared between steps, so a ``GradScaler``, whose scale changes, misleads the
    rule; bfloat16 needs none.

    Args:
        of: All steps T of the training.
        last: The threshold :math:`\lambda_1` at the end, in deviations.
        first: The threshold :math:`\lambda_2` at the beginning.
        decay: The part :math:`\delta` of mean and variance that stays from step to step.

    Raises:
        TypeError: If ``of`` is no integer.
        ValueError: If a number is out of range.

    Example:
        Gradients of one size, then one that is larger.

        >>> rule, memory = WhenLarge(of=100), WhenLarge.memory
        >>> for step, square in enumerate([1.0] * 40 + [3.0]):
        ...     now = Moment(step, memory, lambda: square)
        ...     due, memory = rule.due(now), rule.learned(now)
        >>> due, round(memory["sam_mean"], 1)
        (True, 1.2)

    Source:
        Jiang et al. 2023, arXiv:2304.14647, section 3.
    """

    memory: ClassVar[Mapping[str, float]] = {"sam_mean": 0.0, "sam_variance": 0.0}

    of: int
    last: float = -1.0
    first: float = 1.0
    decay: float = 0.9

    def __post_init__(self) -> None:
        make_plain(self)
        check_count("of", self.of, least=1, remedy="count all steps of the training")
        for name in ("last", "first"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)}.")
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(
                f"decay must be at least 0 and below 1, got {self.decay}; 0 forgets at once."
            )

    def due(self, now: Moment) -> bool:
        """Compare the gradient with those of before."""
        new = self.learned(now)
        done = min(now.step / self.of, 1.0)
        threshold = done * self.last + (1.0 - done) * self.first
        # What is no number counts as large: the block looks at it, and has the step skipped.
        return not now.look() < new["sam_mean"] + threshold * math.sqrt(new["sam_variance"])

    def learned(self, now: Moment) -> Mapping[str, float]:
        """Give mean and variance with this gradient in them."""
        old, square = now.memory or self.memory, now.look()
        if not math.isfinite(square):
            return old
        mean = self.decay * old["sam_mean"] + (1.0 - self.decay) * square
        variance = self.decay * old["sam_variance"] + (1.0 - self.decay) * (square - mean) ** 2
        return {"sam_mean": mean, "sam_variance": variance}
