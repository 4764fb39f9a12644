"""Whether the sentences of section II hold, as reported and under control, by one rule.

A sentence is one "for all": it holds if every comparison in it does, beyond its paired 95 %
interval; none needs a correction, since all have to come out. It does not hold if one comparison
comes out the other way, beyond a band that covers all test variances of a training variance at
once, at a level divided by the number of training variances: that is Holm's first step, by which
alone it is decided whether any is rejected. Otherwise it is undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flatmin.experiments.toy._conditions import Condition, View
from flatmin.experiments.toy._criterion import MEASURES
from flatmin.experiments.toy._section2 import FIGURE_5C, SENTENCES, Sentence
from flatmin.record.item import Verdict

RULE = (
    "**How a sentence is judged.** It holds if every comparison in it comes out as said, beyond a "
    "paired 95 % interval over seeds (t); it does not hold if one comes out the other way beyond a "
    "band that covers all test variances and all three differences at once (max-t bootstrap over "
    "seeds, 95 %, shared among the training variances of the sentence as by Holm); else it is "
    "undecided. “High variances” without a number are judged at the end of the report's axis, "
    "79.5, where the sentence is easiest to hold. By loss is what the report means by test error; "
    "by error rate is our question."
)
LEFT_OUT = "the training variance was left out here"


def judge(
    comparisons: dict[str, Any], trained: Sequence[float], tested: Sequence[float]
) -> list[Verdict]:
    """A verdict on each sentence, in both forms, by loss and then by error rate."""
    verdicts = []
    for measure in MEASURES:
        reported, controlled = (
            View(of_form[measure], trained, tested) for of_form in comparisons.values()
        )
        own = measure != MEASURES[0]
        for claim, said, sentence in (*FIGURE_5C, *SENTENCES):
            words, holds = judged(sentence, reported)
            verdicts.append(
                Verdict(
                    f"By {measure}: {claim}" if own else claim,
                    "" if own else said,
                    words,
                    holds,
                    judged(sentence, controlled),
                    own,
                )
            )
    return verdicts


def judged(sentence: Sentence, view: View) -> tuple[str, bool | None]:
    """How a sentence comes out in one form: in words, and whether it holds."""
    found = list(sentence(view))
    if not found:
        return LEFT_OUT, None
    variances = len({c.variance for c in found})
    contrary = [c for c in found if c.contrary(variances)]
    open_ones = [c for c in found if not c.holds and c not in contrary]
    if contrary:
        shown = max(contrary, key=lambda c: -c.value / (c.half_width or 1e-9))
        return f"{_counted(found)}; beyond the band {len(contrary)}, such as {shown}", False
    if open_ones:
        shown = min(open_ones, key=lambda c: abs(c.value))
        return f"{_counted(found)}; undecided is {shown}", None
    least = min(found, key=lambda c: c.value - c.half_width)
    all_of_them = f"all {len(found)} comparisons" if len(found) > 1 else "the one comparison"
    return f"{all_of_them} as said; the closest is {least}", True


def _counted(found: Sequence[Condition]) -> str:
    good, other = sum(c.holds for c in found), sum(c.contrary() for c in found)
    return f"of {len(found)} comparisons {good} come out as said and {other} the other way"
