"""Whether paired differences decide a claim, and in which words; too few runs decide nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from flatmin.compare.statistics import Mean, signed

WORTH = 0.5  # points of accuracy: less does not matter


def together(differences: Iterable[Mean]) -> bool | None:
    """Whether all are positive: no, if one is negative beyond its interval; else undecided."""
    signs = [difference.sign for difference in differences]
    return False if min(signs) < 0 else True if min(signs) > 0 else None


def no_gain(differences: Collection[Mean]) -> bool | None:
    """Whether none is a gain worth its name: every interval ends below half a point."""
    ends = [difference.value + difference.half for difference in differences]
    lows = [difference.value - difference.half for difference in differences]
    return True if max(ends) <= WORTH else False if max(lows) > 0.0 else None


def alike(difference: Mean) -> bool | None:
    """Whether there is no difference worth its name: the interval stays within half a point."""
    if abs(difference.value) + difference.half <= WORTH:
        return True
    return False if difference.sign else None


def compared(one: str, other: str, difference: Mean) -> str:
    """Which of two is better, as a clause, with the paired difference and its 95 % interval."""
    if difference.n < 2:
        return f"{one} − {other}: {signed(difference)}"
    low, high = difference.value - difference.half, difference.value + difference.half
    points = f"({difference.value:+.1f} points, {low:+.1f} to {high:+.1f})"
    if not difference.sign:
        return f"{one} and {other} cannot be told apart {points}"
    return f"{one} is {'ahead of' if difference.sign > 0 else 'behind'} {other} {points}"


def decided(holds: bool | None, yes: str, no: str) -> str:
    """The answer to a question, or that there is none yet."""
    return "These runs do not decide it" if holds is None else yes if holds else no
