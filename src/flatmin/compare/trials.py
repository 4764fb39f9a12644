"""What the search tries: as many settings for every arm, and two more where the best one lies."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flatmin.compare.arms import Arm

Choice = tuple[float | None, float | None]
"""Learning rate and radius."""
Score = tuple[float, ...]

EXTRA = 2
_STEPS = (math.sqrt(10.0), 2.0)  # between neighbours, of the learning rate and of the radius


def sides(trials: int) -> tuple[int, int]:
    """How many learning rates and radii make so many trials of an arm that has both.

    Raises:
        ValueError: If only one learning rate or only one radius would be tried.

    Example:
        >>> sides(6), sides(9), sides(1)
        ((3, 2), (3, 3), (1, 1))
    """
    radii = max((n for n in range(1, trials + 1) if not trials % n and n * n <= trials), default=0)
    if radii < 2 and trials != 1:
        raise ValueError(
            f"trials must be 1, for no search, or a product such as 4, 6 or 9, so that learning "
            f"rates and radii can be crossed, got {trials}."
        )
    return trials // radii, radii


def grid(arm: Arm, lr: float, trials: int) -> list[Choice]:
    """The first settings: learning rates, crossed with radii where the arm has one.

    Args:
        arm: What is searched for.
        lr: Middle of the learning rates.
        trials: How many settings.

    Returns:
        The settings.

    Example:
        >>> [round(lr, 4) for lr, _ in grid(Arm(name="base"), 0.1, 4)]
        [0.01, 0.0316, 0.1, 0.3162]
    """
    rates, radii = sides(trials) if arm.rho else (trials, 1)
    lrs = [lr * _STEPS[0] ** (n - rates // 2) for n in range(rates)]
    if arm.rho is None:
        return [(rate, None) for rate in lrs]
    rhos = [arm.rho * _STEPS[1] ** (n - (radii - 1) // 2) for n in range(radii)]
    return [(rate, rho) for rate in lrs for rho in rhos]


def best(tried: Sequence[tuple[Choice, Score]]) -> Choice:
    """The setting with the highest score; of equal ones the first."""
    return max(tried, key=lambda pair: pair[1])[0]


def further(tried: Sequence[tuple[Choice, Score]]) -> list[Choice]:
    """Two more settings: beyond the edge at which the best one lies, or else between neighbours.

    Args:
        tried: The settings of a grid with their scores; the larger the better.

    Returns:
        The settings; none after a grid of one, which is no search.

    Example:
        The best of three lies inside, so the gaps on both sides are halved.

        >>> scores = [((0.01, None), (1.0,)), ((0.1, None), (3.0,)), ((1.0, None), (2.0,))]
        >>> sorted(round(lr, 3) for lr, _ in further(scores))
        [0.032, 0.316]
    """
    if len(tried) < 2:
        return []
    middle = best(tried)
    axes = [axis for axis in (0, 1) if middle[axis] is not None]
    each = EXTRA // len(axes)
    return [
        _moved(middle, axis, value) for axis in axes for value in _next(tried, middle, axis)[:each]
    ]


def at_edge(tried: Sequence[tuple[Choice, Score]]) -> bool:
    """Whether the best setting has none beside it on one side; below a radius lies the base."""
    middle = best(tried)
    for axis in (0, 1):
        values = sorted({s[axis] for s, _ in tried}, key=lambda v: v or 0.0)
        if len(values) > 1 and (
            middle[axis] == values[-1] or (axis == 0 and middle[axis] == values[0])
        ):
            return True
    return False


def _next(tried: Sequence[tuple[Choice, Score]], middle: Choice, axis: int) -> list[float]:
    """Where to look on along an axis, the most promising value first."""
    # Only settings that differ from the best one along this axis alone.
    line = sorted(
        (setting[axis] or 0.0, score)
        for setting, score in tried
        if _moved(setting, axis, 1.0) == _moved(middle, axis, 1.0)
    )
    values = [value for value, _ in line]
    here, step = values.index(middle[axis] or 0.0), _STEPS[axis]
    if here == len(line) - 1:
        return [values[here] * step, values[here] * step**2]
    if here == 0:
        return [values[here] / step, values[here] / step**2]
    sides = sorted((line[here - 1], line[here + 1]), key=lambda pair: pair[1], reverse=True)
    return [math.sqrt(value * values[here]) for value, _ in sides]


def _moved(setting: Choice, axis: int, value: float) -> Choice:
    return (value, setting[1]) if axis == 0 else (setting[0], value)
