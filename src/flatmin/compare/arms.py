"""What can be compared: the base, the base for longer, and what is put around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to train; its learning rate and radius are searched for.

    Attributes:
        name: What it is called.
        minimizer: The optimizer of flatmin around the base; ``none`` for the base alone.
        rho: Middle of the radii that are tried; None where there is none.
        part: Share of the steps, the last ones, in which the minimizer perturbs.
        average: Whether the weights of the last quarter of the epochs are averaged.
        times: How many times the epochs it is trained for.
        own: Whether the task has a function for it, from parameters to an optimizer.

    Example:
        >>> ARMS["sam"].rho, base_for(2.0).name
        (0.05, 'base × 2')
    """

    name: str
    minimizer: str = "none"
    rho: float | None = None
    part: float = 1.0
    average: bool = False
    times: float = 1.0
    own: bool = False

    @property
    def when(self) -> str:
        """The part as a rule of ``TrainConfig``."""
        return "always" if self.part == 1.0 else f"last-{self.part:g}"


ARMS = {
    arm.name: arm
    for arm in (
        Arm(name="base"),
        Arm(name="sam", minimizer="sam", rho=0.05),
        Arm(name="asam", minimizer="asam", rho=0.5),
        # The late phase: Zhou et al. 2024, arXiv:2410.10373.
        Arm(name="late-sam", minimizer="sam", rho=0.05, part=0.25),
        Arm(name="averaged", average=True),
        Arm(name="sam-averaged", minimizer="sam", rho=0.05, average=True),
    )
}
# The base for as much as another arm has had; which that is, is measured.
COSTS = ("gradients", "seconds")
USUAL = (*COSTS, "sam", "asam")


def base_for(times: float) -> Arm:
    """The base, trained for other than the usual number of epochs."""
    return ARMS["base"] if times == 1.0 else Arm(name=f"base × {times:g}", times=times)


def chosen(names: Iterable[str], own: Mapping[str, Any]) -> tuple[list[Arm], list[str]]:
    """The arms that are compared with the base, and by which costs.

    Args:
        names: As given: names of arms, and of costs.
        own: The task's own arms.

    Returns:
        The arms, and those of ``COSTS`` that were asked for.

    Raises:
        ValueError: If a name is unknown or taken, or nothing is left to compare.
    """
    names = list(dict.fromkeys(names))
    taken = [name for name in own if name in ARMS or name in COSTS]
    if taken:
        raise ValueError(f"the name {taken[0]!r} is flatmin's own; give the arm another one.")
    known = [*ARMS, *COSTS, *own]
    for name in names:
        if name not in known:
            raise ValueError(f"there is no arm {name!r}; the arms are {', '.join(known)}.")
    arms = [
        ARMS[name] if name in ARMS else Arm(name=name, own=True)
        for name in names
        if name not in COSTS and name != "base"
    ]
    if not arms:
        raise ValueError(
            f"there must be an arm to compare with the base, got {', '.join(names) or 'none'}; "
            "name sam, for instance."
        )
    return arms, [cost for cost in COSTS if cost in names]
