"""When to perturb: in every step, or in some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class When(Protocol):
    """A rule that says which steps perturb, as a value.

    A step that is not due costs one pass in a loop that asks ``optimizer.due`` and with a closure;
    elsewhere ``perturbed()`` moves nothing in it, so that its body makes the plain gradient again.
    """

    def due(self, step: int) -> bool:
        """Say whether a step perturbs.

        Args:
            step: How many steps were taken before; one that is skipped is not counted.

        Returns:
            Whether this one climbs.
        """


@dataclass(frozen=True, slots=True)
class Every:
    """One step of each ``k`` perturbs, the first one among them.

    Args:
        k: After how many steps the next one is due.

    Raises:
        TypeError: If ``k`` is no integer.
        ValueError: If ``k`` is less than one.

    Example:
        >>> [Every(3).due(step) for step in range(6)]
        [True, False, False, True, False, False]

    Source:
        MosaicML Composer, ``SAMOptimizer(interval=...)``.
    """

    k: int

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int):
            raise TypeError(f"k must be an integer, got {self.k!r}.")
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}; 1 perturbs in every step.")

    def due(self, step: int) -> bool:
        """Say yes where ``step`` is a multiple of ``k``."""
        return step % self.k == 0
