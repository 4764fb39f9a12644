"""Whether the sentences of section II hold, in each form of the study.

In a form a sentence holds if all its comparisons come out as said, beyond their paired 95 %
intervals; it does not hold if any comes out the other way, beyond the interval; and it is undecided
otherwise. One in forty, which such intervals let pass by chance, may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flatmin.experiments.toy._conditions import Condition, View
from flatmin.experiments.toy._section2 import FIGURE_5C, SENTENCES, Sentence, order_of_figure_5c
from flatmin.record.item import Verdict

CHANCE = 1 / 40


def judge(
    comparisons: dict[str, Any], trained: Sequence[float], tested: Sequence[float]
) -> list[Verdict]:
    """A verdict on each sentence, for the losses of both forms."""
    views = {
        form: View(comparison["loss"], trained, tested) for form, comparison in comparisons.items()
    }
    verdicts = [verdict(claim, said, views, sentence) for claim, said, sentence in SENTENCES]
    return [verdict(*FIGURE_5C, views, order_of_figure_5c), *verdicts, _gap(views)]


def verdict(claim: str, said: str, views: dict[str, View], sentence: Sentence) -> Verdict:
    """Judge a sentence in several views; it holds if it does so in each of them."""
    found = {form: list(sentence(view)) for form, view in views.items()}
    if not any(found.values()):
        return Verdict(claim, said, "the training variance was left out here", None)
    holds = {form: _holds(conditions) for form, conditions in found.items()}
    words = "; ".join(f"{form}: {_counted(conditions)}" for form, conditions in found.items())
    if holds.get("as reported") and holds.get("controlled") is False:
        words = f"holds only as reported. {words}"
    both = list(holds.values())
    return Verdict(claim, said, words, False if False in both else None if None in both else True)


def _holds(conditions: Sequence[Condition]) -> bool | None:
    good = sum(c.holds for c in conditions)
    contrary = sum(c.contrary for c in conditions)
    if contrary > CHANCE * len(conditions):
        return False
    return True if len(conditions) - good <= CHANCE * len(conditions) else None


def _counted(conditions: Sequence[Condition]) -> str:
    """How many comparisons come out as said, and the one that does least."""
    good = sum(c.holds for c in conditions)
    contrary = sum(c.contrary for c in conditions)
    if good == len(conditions):
        return f"holds in all {good} comparisons"
    kind = {True: "holds", False: "does not hold", None: "undecided"}[_holds(conditions)]
    worst = min(conditions, key=lambda c: c.value + c.half_width)
    count = f"of {len(conditions)} comparisons {good} as said, {contrary} the other way"
    return f"{kind}: {count}; {worst}"


def _gap(views: dict[str, View]) -> Verdict:
    claim = (
        "“(Figure 5e) the improvement in test errors between ASAM and ADAM is less clear because "
        "there isn't a big gap between their curves”"
    )
    gaps = {
        (form, variance): sum(view.below("ASAM", "Adam", variance, t).value for t in places)
        / len(places)
        for form, view in views.items()
        for variance in (15.0, 30.0)
        if variance in view.trained
        for places in [view.between(variance, 80)]
    }
    if len(gaps) < 4:
        return Verdict(claim, "trained at 30", "the training variance was left out here", None)
    words = "; ".join(
        f"{form}: Adam − ASAM beyond the training variance {gaps[form, 30.0]:.3f} at 30, "
        f"{gaps[form, 15.0]:.3f} at 15"
        for form in views
    )
    return Verdict(
        claim,
        "trained at 30",
        words,
        all(abs(gaps[form, 30.0]) < abs(gaps[form, 15.0]) for form in views),
    )
