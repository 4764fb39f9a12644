"""Whether paired differences decide a claim, and in which words; too few runs decide nothing."""

from __future__ import annotations

from collections.abc import Collection

from flatmin.compare.statistics import Mean, signed

WORTH = 0.5  # points of accuracy: less does not matter
RULE = (
    "**How a claim is judged.** It is one about all of its differences: it holds if each is "
    "positive beyond its 95 % interval (t, paired by seed; none needs a correction, since all have "
    "to be), and does not hold if one is negative beyond an interval at a level shared among them, "
    "which is Holm's first step; else it is undecided. *No gain* holds if every 95 % interval ends "
    "below half a point, *no difference*, or *hard to tell*, if it stays within half a point on "
    "both sides: a wide interval shows neither. Half a point is about two standard deviations "
    "between seeds of the networks that the literature trains, so that less is not told from luck."
)


def together(differences: Collection[Mean]) -> bool | None:
    """Whether all are positive: no, if one is negative, corrected for their number."""
    if any(difference.beyond(len(differences)) < 0 for difference in differences):
        return False
    return True if min(difference.sign for difference in differences) > 0 else None


def no_gain(differences: Collection[Mean]) -> bool | None:
    """Whether none is a gain worth its name: every interval ends below half a point."""
    left = [d for d in differences if not d.value + d.half <= WORTH]
    if not left:
        return True
    return False if any(d.beyond(len(differences)) > 0 for d in left) else None


def alike(differences: Collection[Mean]) -> bool | None:
    """Whether there is no difference worth its name: every interval stays within half a point."""
    left = [d for d in differences if not abs(d.value) + d.half <= WORTH]
    if not left:
        return True
    return False if any(d.beyond(len(differences)) for d in left) else None


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
