"""When to perturb: in every step, or in some, by a rule that is a value."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from flatmin._given import make_plain, shown
from flatmin._streams import seed_for


@dataclass(frozen=True, slots=True)
class Moment:
    """What a rule may look at.

    Attributes:
        step: How many steps were taken before; one that is skipped is not counted.
        memory: What the rule remembers.
        look: Gives the squared norm of the first gradient, over all groups in the ball.

    Example:
        >>> Every(3).due(Moment(step=6))
        True
    """

    step: int
    memory: Mapping[str, float] | None = None
    look: Callable[[], float] = float


class When(ABC):
    """A rule that says which steps perturb, as a value.

    A step that is not due costs one pass in a loop that asks ``optimizer.due`` and with a closure;
    elsewhere ``perturbed()`` moves nothing in it, so that its body makes the plain gradient again.

    Example:
        A rule of one's own: the first hundred steps.

        >>> class Early(When):
        ...     def due(self, now):
        ...         return now.step < 100
        >>> Early().due(Moment(99)), Early().due(Moment(100))
        (True, False)

    Source:
        The rules name theirs.
    """

    memory: ClassVar[Mapping[str, float]] = {}
    """What a rule that looks at gradients remembers of them, with the values to begin with; kept as
    settings of the groups."""

    @abstractmethod
    def due(self, now: Moment) -> bool:
        """Say whether a step perturbs.

        Args:
            now: The step, and what may be looked at.

        Returns:
            Whether this one climbs.
        """

    def share(self, now: Moment) -> float:
        """Say how far a step that is due perturbs.

        Args:
            now: The step, and what may be looked at.

        Returns:
            The part of rho, above 0 and at most 1.
        """
        return 1.0

    def learned(self, now: Moment) -> Mapping[str, float]:
        """Say what is to be remembered once the step is taken.

        Args:
            now: The step, and what may be looked at.

        Returns:
            New values of ``memory``.
        """
        return {}


@dataclass(frozen=True, slots=True)
class Every(When):
    """One step of each ``k`` perturbs, the first one among them.

    Args:
        k: After how many steps the next one is due.

    Raises:
        TypeError: If ``k`` is no integer.
        ValueError: If ``k`` is less than one.

    Example:
        >>> [Every(3).due(Moment(step)) for step in range(6)]
        [True, False, False, True, False, False]

    Source:
        MosaicML Composer, ``SAMOptimizer(interval=...)``.
    """

    k: int

    def __post_init__(self) -> None:
        make_plain(self)
        check_count("k", self.k, least=1, remedy="1 perturbs in every step")

    def due(self, now: Moment) -> bool:
        """Say yes where the step is a multiple of ``k``."""
        return now.step % self.k == 0


@dataclass(frozen=True, slots=True)
class LastPart(When):
    r"""The last part of training perturbs: steps :math:`t \ge t_0 = (1 - f)\,T`.

    The part should own a whole decay of the learning rate. With a ramp the radius grows from step
    to step, :math:`\rho_t = \rho \min(1, (t - t_0 + 1)/R)`.

    Args:
        fraction: The part f of all steps, above 0 and at most 1.
        of: All steps T of the training, in steps of the optimizer, not epochs.
        ramp: Steps R in which the radius grows to rho; 0 for none.

    Raises:
        TypeError: If ``of`` or ``ramp`` is no integer, or ``fraction`` no number.
        ValueError: If one is out of range.

    Example:
        >>> rule = LastPart(0.5, of=6, ramp=2)
        >>> [rule.due(Moment(step)) for step in range(6)]
        [False, False, False, True, True, True]
        >>> [rule.share(Moment(step)) for step in (3, 4, 5)]
        [0.5, 1.0, 1.0]

    Source:
        Zhou et al. 2024, arXiv:2410.10373.
    """

    fraction: float
    of: int
    ramp: int = 0

    def __post_init__(self) -> None:
        make_plain(self)
        check_part("fraction", self.fraction)
        check_count("of", self.of, least=1, remedy="count all steps of the training")
        check_count("ramp", self.ramp, least=0, remedy="0 perturbs at once with all of rho")

    @property
    def begin(self) -> int:
        """The first step that perturbs; there is always one."""
        return min(round((1.0 - self.fraction) * self.of), self.of - 1)

    def due(self, now: Moment) -> bool:
        """Say yes from ``begin`` on."""
        return now.step >= self.begin

    def share(self, now: Moment) -> float:
        """Give the part of rho that the ramp has reached."""
        return min(1.0, (now.step - self.begin + 1) / self.ramp) if self.ramp else 1.0


@dataclass(frozen=True, slots=True)
class WithProbability(When):
    """Each step perturbs with probability ``q``, whatever the others did.

    The draw of a step is made from ``seed`` and its number alone: it is the same on all processes
    and after resuming, and no random stream of the training is touched.

    Args:
        q: The probability, above 0 and at most 1.
        seed: Chooses the draws.

    Raises:
        TypeError: If ``q`` is no number, or ``seed`` no integer.
        ValueError: If ``q`` is out of range.

    Example:
        >>> rule = WithProbability(0.25)
        >>> sum(rule.due(Moment(step)) for step in range(1000))
        260

    Source:
        Zhao et al. 2022, arXiv:2203.09962 (SS-SAM, a Bernoulli trial a step).
    """

    q: float
    seed: int = 0

    def __post_init__(self) -> None:
        make_plain(self)
        check_part("q", self.q)
        check_count("seed", self.seed, least=0, remedy="it only chooses the draws")

    def due(self, now: Moment) -> bool:
        """Draw for this step."""
        return Random(seed_for("perturb", self.seed, now.step)).random() < self.q


def check_count(name: str, value: object, *, least: int, remedy: str) -> None:
    """Refuse what counts no steps.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {shown(value)}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}; {remedy}.")


def check_part(name: str, value: object) -> None:
    """Refuse what is no part of a whole.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not above 0 and at most 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {shown(value)}.")
    if not 0.0 < value <= 1.0 or not math.isfinite(value):
        raise ValueError(
            f"{name} must be above 0 and at most 1, got {value}; rho=0 perturbs in no step."
        )
