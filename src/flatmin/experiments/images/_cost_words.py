"""What the study of cheap forms says, and how its claims are judged."""

from __future__ import annotations

from typing import Any

from flatmin.compare.statistics import Mean, mean, paired, signed
from flatmin.compare.verdict import compared
from flatmin.experiments.images import _forms as forms
from flatmin.experiments.images._cost_table import kept, whole
from flatmin.experiments.images._words import judged
from flatmin.record.item import Verdict

KEPT, CHEAP = 0.95, 1.2  # the aim: this part of the whole gain, for so many times SGD's seconds
_FITS = 95.0  # % of the training labels, wrong ones among them: more is known by heart


def answer(record: dict[str, Any]) -> str:
    """Which form comes nearest to the whole gain for little."""
    numbers = record["numbers"]
    found, best = numbers["forms"], whole(numbers)
    gain = paired(found[best]["last"], found["SGD"]["last"])
    length = f"{best_length(numbers)}, the best length of up to as many gradients"
    text = (
        f"{best} gains {signed(gain)} points over SGD for as many epochs, at "
        f"{found[best]['seconds']:.2f} times its seconds; "
        f"{compared(best, length, _ahead(numbers))}."
    )
    quick = [name for name in _others(found) if found[name]["seconds"] <= CHEAP]
    if quick:
        first = max(quick, key=lambda name: kept(numbers, name).value)
        return f"{text} Of the forms that take at most {CHEAP} times SGD's seconds, " + (
            f"{first} keeps most: {_in_words(numbers, first)}."
        )
    few = [name for name in _others(found) if found[name]["gradients"] <= CHEAP]
    first = max(few, key=lambda name: kept(numbers, name).value)
    return (
        f"{text} On so small a network no form takes at most {CHEAP} times SGD's seconds; of those "
        f"with at most {CHEAP} times its gradients {first} keeps most: "
        f"{_in_words(numbers, first)}."
    )


def finding(record: dict[str, Any]) -> str:
    """What is to be had for little."""
    numbers = record["numbers"]
    found, best = numbers["forms"], whole(numbers)
    gain = paired(found[best]["last"], found["SGD"]["last"])
    few = [name for name in _others(found) if found[name]["gradients"] <= CHEAP]
    first = max(few, key=lambda name: kept(numbers, name).value)
    return (
        f"Where labels are wrong {best} gains {signed(gain)} points over SGD, for twice the "
        f"gradients; {first} keeps {_in_words(numbers, first)}."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """The gain, what the base does with wrong labels, and whether a cheap form keeps the gain."""
    numbers = record["numbers"]
    found, best = numbers["forms"], whole(numbers)
    fits = mean(found["SGD"]["train"])
    gain, ahead = paired(found[best]["last"], found["SGD"]["last"]), _ahead(numbers)
    found_out = [
        judged(
            record,
            f"Control: where labels are wrong {best} is better than SGD, for as many epochs",
            "",
            (f"{signed(gain)} points", gain.sign > 0 if gain.sign else None),
            own=True,
        ),
        judged(
            record,
            f"{best} is better than SGD at the best of its lengths of up to as many gradients",
            "",
            (f"{signed(ahead)} points", ahead.sign > 0 if ahead.sign else None),
            own=True,
        ),
        judged(
            record,
            "Even with its weight decay tuned the base learns wrong labels by heart (over "
            f"{_FITS:g} % of the training labels)",
            "",
            (f"{fits} %", fits.value > _FITS),
            own=True,
        ),
    ]
    for cost in ("gradients", "seconds"):
        cheap = [name for name in _others(found) if found[name][cost] <= CHEAP]
        shares = [kept(numbers, name) for name in cheap]
        holds = any(share.low >= KEPT for share in shares)
        none = all(share.high < KEPT for share in shares)
        listed = "; ".join(f"{n} {share}" for n, share in zip(cheap, shares, strict=True))
        found_out.append(
            judged(
                record,
                f"A form that takes at most {CHEAP} times SGD's {cost} keeps {KEPT:.0%} of "
                f"{best}'s gain",
                "",
                (listed or "none takes so little", True if holds else False if none else None),
                own=True,
            )
        )
    return found_out


def _others(found: dict[str, Any]) -> list[str]:
    """All but SGD and its lengths."""
    return [name for name in found if name not in forms.LENGTHS]


def _in_words(numbers: dict[str, Any], name: str) -> str:
    form = numbers["forms"][name]
    return (
        f"{kept(numbers, name)} of it at {form['gradients']:.2f} times SGD's gradients and "
        f"{form['seconds']:.2f} times its seconds"
    )


def best_length(numbers: dict[str, Any]) -> str:
    """The length of SGD, of up to as many gradients as SAM's, that was best on held-out images."""
    return max(forms.LENGTHS, key=lambda name: max(numbers["search"][name]["accuracy"]))


def _ahead(numbers: dict[str, Any]) -> Mean:
    """The whole gain against SGD at its best length."""
    found = numbers["forms"]
    return paired(found[whole(numbers)]["last"], found[best_length(numbers)]["last"])
