"""What a comparison shows: paired differences, whether they decide, and in which words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from flatmin.compare.power import LEVEL, detectable, deviation, holm, p_value, seeds_for
from flatmin.compare.statistics import Mean, paired, subtract
from flatmin.compare.verdict import WORTH

_ALIKE = 5  # seeds that all have to agree to the last digit before that says anything
_USUAL_PART = 0.01  # of the base's mean, where the metric is no accuracy
_ROUNDING = 1e-9  # of what matters: 56.000000000000007 − 54 is 2


def usual_worth(unit: str, base: Sequence[float | None]) -> float:
    """The least difference that matters, where nobody says."""
    if unit == "points":
        return WORTH
    known = [value for value in base if value is not None]
    return _USUAL_PART * abs(sum(known) / len(known)) if known else WORTH


def differences(
    values: Mapping[str, Sequence[float | None]],
    references: Mapping[str, Mapping[str, str]],
    *,
    larger: bool,
    worth: float,
    overlap: float = 0.0,
) -> list[dict[str, Any]]:
    """Compare each arm with its bases, seed by seed.

    Args:
        values: The metric of each arm by seed; None where a run diverged.
        references: For each arm, at which cost it is compared with which base.
        larger: Whether the larger metric is better.
        worth: The least difference that matters.
        overlap: As for :func:`flatmin.compare.statistics.mean`.

    Returns:
        For each pair ``arm``, ``reference``, the cost ``at`` which they are equal; ``each``
        difference by seed, positive where the arm is better, their mean ``value`` with its 95 %
        interval ``low`` to ``high``; ``p`` after Holm over the arms at this cost; ``detectable``,
        the least difference that so many seeds tell; whether arm and base are each ``constant``
        over seeds; ``verdict``: helps, hurts, no or undecided; ``more``, seeds that
        would tell a difference of ``told``, where it is undecided.
    """
    found = []
    kinds = dict.fromkeys(kind for bases in references.values() for kind in bases)
    for kind in kinds:
        pairs = {
            arm: (values[arm], values[bases[kind]])
            for arm, bases in references.items()
            if kind in bases and (kind == "epochs" or bases[kind] != bases["epochs"])
        }
        means = {
            arm: _rounded(paired(*(pair if larger else pair[::-1]), overlap=overlap), worth)
            for arm, pair in pairs.items()
        }
        chances = holm({arm: p_value(mean) for arm, mean in means.items()})
        for arm, mean in means.items():
            one, other = pairs[arm]
            each = subtract(one, other) if larger else subtract(other, one)
            level = LEVEL / len(means)
            spread = deviation(mean, overlap) if mean.n > 1 else None
            row = {
                "arm": arm,
                "reference": references[arm][kind],
                "at": kind,
                "each": each,
                "value": mean.value,
                "low": mean.value - mean.half,
                "high": mean.value + mean.half,
                "p": chances[arm],
                "seeds": mean.n,
                "lost": len(each) - mean.n,
                "constant": mean.n > 1 and _constant(one) and _constant(other),
                "detectable": spread and detectable(spread, mean.n, level=level, overlap=overlap),
            }
            row["verdict"] = verdict(row, worth)
            if row["verdict"] == "undecided" and spread:
                row |= _more(spread, mean.n, worth, level=level, overlap=overlap)
            found.append(row)
    return found


def _rounded(difference: Mean, worth: float) -> Mean:
    """Without what is left of rounding, so that seeds that agree do so to the last bit."""
    least = _ROUNDING * worth
    value, error, half = (
        0.0 if abs(number) < least else number
        for number in (difference.value, difference.error, difference.half)
    )
    return Mean(value, error, half, difference.n)


def _constant(values: Sequence[float | None]) -> bool:
    return len(set(values)) == 1


def verdict(row: Mapping[str, Any], worth: float) -> str:
    """Whether a difference decides.

    Runs that diverged leave it open, and so do values that no seed changes, for then the seeds are
    one and the same run.

    Args:
        row: With ``value``, ``low``, ``high``, ``p`` after Holm, ``seeds`` and ``lost`` ones, and
            whether the values are ``constant``.
        worth: The least difference that matters.

    Returns:
        ``helps`` or ``hurts`` where p is at most 5 %; ``no`` where the interval ends below
        ``worth``; else ``undecided``.
    """
    few = 2 if row["low"] < row["high"] else _ALIKE
    if row["lost"] or row["constant"] or row["seeds"] < few:
        return "undecided"
    if row["p"] <= LEVEL:
        return "helps" if row["value"] > 0 else "hurts"
    return "no" if row["high"] < worth else "undecided"


def _more(
    spread: float, seeds: int, worth: float, *, level: float, overlap: float
) -> dict[str, Any]:
    """How many more seeds would tell what matters; where that is decided, half of it."""
    told = worth
    while (needed := seeds_for(told, spread, level=level, overlap=overlap)) is not None:
        if needed > seeds:
            return {"more": needed - seeds, "told": told}
        told /= 2
    return {"more": None, "told": told}


def answer(rows: Sequence[Mapping[str, Any]], unit: str, worth: float) -> str:
    """The answer in one sentence, arm by arm.

    Args:
        rows: Those of :func:`differences`.
        unit: Of the metric; may be empty.
        worth: The least difference that matters.

    Returns:
        The sentence.

    Example:
        >>> row = {"arm": "sam", "at": "epochs", "value": 0.8, "low": 0.3, "high": 1.3}
        >>> answer([{**row, "verdict": "helps"}], "points", 0.5)
        'sam helps by 0.8 [0.3, 1.3] points at equal epochs.'
    """
    clauses = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        words = [_said(row, before, unit, worth) for before, row in pairwise([{}, *mine])]
        clauses.append(f"{arm} {', and '.join(words)}")
    return "; ".join(clauses) + "."


def number(value: float, worth: float) -> str:
    """A number, to the digit at which a difference begins to matter, at least the first."""
    digits = 1
    while worth < 10**-digits and digits < 9:
        digits += 1
    return f"{value:.{digits}f}"


def _said(row: Mapping[str, Any], before: Mapping[str, Any], unit: str, worth: float) -> str:
    """What is found at one cost, without what the words before it have said already."""
    again = row["verdict"] == before.get("verdict")
    unit = f" {unit}" if unit else ""
    at = f"at equal {row['at']}"
    sign = -1.0 if row["verdict"] == "hurts" else 1.0
    value, low, high = (number(sign * row[name], worth) for name in ("value", "low", "high"))
    match row["verdict"]:
        case "helps":
            return f"{'' if again else 'helps '}by {value} [{low}, {high}]{unit} {at}"
        case "hurts":
            return f"{'' if again else 'hurts '}by {value} [{high}, {low}]{unit} {at}"
        case "no" if before.get("verdict") == "helps":
            return f"not {at}"
        case "no":
            either = " either way" if row["low"] > -worth else ""
            least = f"less than {number(worth, worth)}{unit}{either}"
            return f"{'' if again else 'does not help '}{at} ({least})"
    return f"{'' if again else 'is undecided '}{at} ({_open(row, unit, worth)})"


def _open(row: Mapping[str, Any], unit: str, worth: float) -> str:
    """Why a difference is undecided, and what would decide it."""
    if row["seeds"] + row["lost"] < 2:
        return "one seed"
    if row["lost"]:
        return f"{row['lost']} run{'s' * (row['lost'] > 1)} diverged"
    if row["constant"]:
        return "each arm is the same for every seed, as if seeds were not used"
    if "more" not in row:
        return "all seeds alike, and too few"
    if row["more"] is None:
        return "no number of seeds would tell"
    told = f"{number(row['told'], worth)}{unit}"
    more = f"{row['more']} more seed{'s' * (row['more'] > 1)}"
    return f"about {more} would tell a difference of {told}"
