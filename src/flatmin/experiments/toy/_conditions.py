"""What a sentence becomes: comparisons "A is below B at this training and test variance"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flatmin.experiments.toy._criterion import NAMES, difference


@dataclass(frozen=True, slots=True)
class Condition:
    """A difference that a sentence says is positive, and where.

    Attributes:
        low: What is said to have the lower loss.
        high: What is said to have the higher one.
        variance: That of training.
        test: That of the test set.
        value: The difference, high minus low.
        half_width: Of its 95 % interval, for this comparison alone.
        wider: Factors on it, with which the intervals of k training variances hold together.
    """

    low: str
    high: str
    variance: float
    test: float
    value: float
    half_width: float
    wider: tuple[float, ...] = (1.0,)

    def __str__(self) -> str:
        """The difference in words; "30 → 60" is trained at 30, tested at 60."""
        return (
            f"{self.low} below {self.high} at {self.variance:g} → {self.test:g} by "
            f"{self.value:.3f} ± {self.half_width:.3f}"
        )

    @property
    def holds(self) -> bool:
        """Whether it is positive beyond doubt."""
        return self.value > self.half_width

    def contrary(self, variances: int = 1) -> bool:
        """Whether it is negative beyond doubt, as one of all comparisons at some variances."""
        factor = self.wider[min(variances, len(self.wider)) - 1]
        return self.value < -self.half_width * factor


@dataclass(frozen=True, slots=True)
class View:
    """The comparisons of one form."""

    comparison: dict[str, Any]
    trained: Sequence[float]
    tested: Sequence[float]

    def below(self, low: str, high: str, variance: float, test: float) -> Condition:
        """The loss of ``low`` is below that of ``high``."""
        row, column = self.trained.index(variance), self.tested.index(test)
        swap = NAMES.index(low) > NAMES.index(high)
        pair = f"{low} − {high}" if swap else f"{high} − {low}"
        value, half = difference(self.comparison, pair, row, column)
        factors = self.comparison["widening"][row]
        wider = tuple(float("inf") if factor is None else factor for factor in factors)
        return Condition(low, high, variance, test, -value if swap else value, half, wider)

    def best(self, name: str, variance: float, tests: Sequence[float]) -> list[Condition]:
        """One optimizer is below both others at each of some test variances."""
        others = [other for other in NAMES if other != name]
        return [self.below(name, other, variance, t) for t in tests for other in others]

    def between(self, low: float, high: float) -> list[float]:
        """Test variances from ``low`` to ``high``."""
        return [t for t in self.tested if low <= t <= high]
