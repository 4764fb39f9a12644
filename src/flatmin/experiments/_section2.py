"""The sentences of the report's section II, each judged in both forms.

A sentence becomes comparisons "A is below B at this training and test variance". In a form of the
study it holds if all come out as said, beyond their paired 95 % intervals; it does not hold if any
comes out the other way, beyond the interval; and it is undecided otherwise. One in forty, which
such intervals let pass by chance, may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from flatmin.experiments._criterion import NAMES, difference
from flatmin.experiments._harness import Verdict

FAR = 60.0  # "high variances": from here to the end of the axis, for each training variance

CHANCE = 1 / 40


@dataclass(frozen=True, slots=True)
class Condition:
    """A difference that a sentence says is positive, and where."""

    low: str
    high: str
    variance: float
    test: float
    value: float
    half_width: float

    def __str__(self) -> str:
        """The difference in words; "30 → 60" is trained at 30, tested at 60."""
        return (
            f"{self.low} below {self.high} at {self.variance:g} → {self.test:g} by "
            f"{self.value:.3f} ± {self.half_width:.3f}"
        )

    @property
    def holds(self) -> bool:
        """Whether it is positive beyond doubt."""
        return self.value > self.half_width

    @property
    def contrary(self) -> bool:
        """Whether it is negative beyond doubt."""
        return self.value < -self.half_width


@dataclass(frozen=True, slots=True)
class View:
    """The comparisons of one form."""

    comparison: dict[str, Any]
    trained: Sequence[float]
    tested: Sequence[float]

    def below(self, low: str, high: str, variance: float, test: float) -> Condition:
        """The loss of ``low`` is below that of ``high``."""
        row, column = self.trained.index(variance), self.tested.index(test)
        swap = NAMES.index(low) > NAMES.index(high)
        pair = f"{low} − {high}" if swap else f"{high} − {low}"
        value, half = difference(self.comparison, pair, row, column)
        return Condition(low, high, variance, test, -value if swap else value, half)

    def best(self, name: str, variance: float, tests: Sequence[float]) -> list[Condition]:
        """One optimizer is below both others at each of some test variances."""
        others = [other for other in NAMES if other != name]
        return [self.below(name, other, variance, t) for t in tests for other in others]

    def between(self, low: float, high: float) -> list[float]:
        """Test variances from ``low`` to ``high``."""
        return [t for t in self.tested if low <= t <= high]


Sentence = Callable[[View], Iterator[Condition]]


def adam_is_worst_far_off(view: View) -> Iterator[Condition]:
    """Adam is above both, wherever the test variance is high."""
    for variance in view.trained:
        for test in view.between(FAR, 80):
            yield view.below("SAM", "Adam", variance, test)
            yield view.below("ASAM", "Adam", variance, test)


def adam_is_best_at_first(view: View) -> Iterator[Condition]:
    """Adam is best at test variance 1, below the training variance."""
    for variance in view.trained:
        if variance > 1:
            yield from view.best("Adam", variance, [1.0])


def asam_is_best_around(view: View) -> Iterator[Condition]:
    """ASAM is best where the test variance is that of training."""
    for variance in view.trained:
        yield from view.best("ASAM", variance, [variance])


def sam_is_best_in_the_end(view: View) -> Iterator[Condition]:
    """SAM is best at the largest test variance."""
    for variance in view.trained:
        yield from view.best("SAM", variance, view.tested[-1:])


def asam_beats_sam_around(view: View) -> Iterator[Condition]:
    """ASAM is below SAM where the test variance is that of training."""
    for variance in view.trained:
        yield view.below("ASAM", "SAM", variance, variance)


def sam_beats_asam_in_the_end(view: View) -> Iterator[Condition]:
    """SAM is below ASAM at the largest test variance."""
    for variance in view.trained:
        yield view.below("SAM", "ASAM", variance, view.tested[-1])


def best_of_15(name: str, low: float, high: float) -> Sentence:
    """One optimizer is best in a range, trained at variance 15."""

    def conditions(view: View) -> Iterator[Condition]:
        if 15.0 in view.trained:
            yield from view.best(name, 15.0, view.between(low, high))

    return conditions


def sam_is_best_far_off_30(view: View) -> Iterator[Condition]:
    """SAM is best at high test variances, trained at variance 30."""
    if 30.0 in view.trained:
        yield from view.best("SAM", 30.0, view.between(FAR, 80))


def order_of_figure_5c(view: View) -> Iterator[Condition]:
    """The order of the three curves of figure 5c at its left, in its middle and at its right."""
    if 15.0 in view.trained:
        for test, order in (
            (1.0, "Adam ASAM SAM"),
            (40.0, "ASAM Adam"),
            (40.0, "SAM Adam"),
            (79.0, "SAM ASAM Adam"),
        ):
            names = order.split()
            for low, high in pairwise(names):
                yield view.below(low, high, 15.0, test)


FIGURE_5C = (
    "Trained at 15 (fig. 5c), mean losses: Adam < ASAM < SAM at test variance 1; ASAM and SAM "
    "below Adam at 40; SAM < ASAM < Adam at 79",
    "0.29 < 0.32 < 0.55; 0.59, 0.61 < 0.69; 0.65 < 0.78 < 1.03 (its code, seed 0)",
)
SENTENCES: tuple[tuple[str, str, Sentence], ...] = (
    (
        "“Networks trained with ASAM and SAM generalize better than training with ADAM because, "
        "for test datasets with high variances, the blue curve is always above”",
        "always",
        adam_is_worst_far_off,
    ),
    (
        "“If we increase the variance of the test datasets (starting from 0), ADAM first gives the "
        "lowest test errors”",
        "all variances",
        adam_is_best_at_first,
    ),
    (
        "“When [they] reach values around the variance of the train dataset, ASAM becomes the best "
        "method”",
        "all variances",
        asam_is_best_around,
    ),
    (
        "“There is a point where SAM starts to give the lowest test errors and keeps giving the "
        "lowest errors for all the variances after this point”",
        "all variances",
        sam_is_best_in_the_end,
    ),
    (
        "“(σ² = 15), ASAM method gives the lowest test errors for test datasets with variances "
        "from 5 to 40”",
        "5 to 40",
        best_of_15("ASAM", 5.0, 40.0),
    ),
    ("“After σ² = 40, SAM method gives the lowest”", "40 to 80", best_of_15("SAM", 40.5, 80.0)),
    (
        "“For variances below σ² = 5, ADAM gives the lowest test errors”",
        "1 to 5",
        best_of_15("Adam", 1.0, 4.5),
    ),
    (
        "“(Figure 5e) SAM keeps giving the lowest test error for test datasets with high "
        "variances”",
        "trained at 30",
        sam_is_best_far_off_30,
    ),
    (
        "“ASAM generalizes better than SAM for datasets with variances […] around the variance of "
        "the train dataset”",
        "all variances",
        asam_beats_sam_around,
    ),
    (
        "“For test datasets with variances larger than this range of values, SAM generalizes "
        "better”",
        "all variances",
        sam_beats_asam_in_the_end,
    ),
)


def judge(
    comparisons: dict[str, Any], trained: Sequence[float], tested: Sequence[float]
) -> list[Verdict]:
    """A verdict on each sentence, for the losses of both forms."""
    views = {
        form: View(comparison["loss"], trained, tested) for form, comparison in comparisons.items()
    }
    verdicts = [verdict(claim, said, views, sentence) for claim, said, sentence in SENTENCES]
    return [_order_of_means(*FIGURE_5C, views), *verdicts, _gap(views)]


def crossing(
    curves: dict[str, Any], pair: tuple[str, str], row: int, tested: Sequence[float]
) -> str:
    """Test variance from which on the first stays below the second in the mean; in words."""
    first, second = (curves[name]["mean"][row] for name in pair)
    above = [index for index, (a, b) in enumerate(zip(first, second, strict=True)) if a >= b]
    if not above:
        return "everywhere"
    return f"{tested[above[-1] + 1]:g}" if above[-1] + 1 < len(tested) else "never"


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


def _order_of_means(claim: str, said: str, views: dict[str, View]) -> Verdict:
    found = {form: list(order_of_figure_5c(view)) for form, view in views.items()}
    if not any(found.values()):
        return Verdict(claim, said, "the training variance was left out here", None)
    words = "; ".join(
        f"{form}: " + ", ".join(map(str, conditions)) for form, conditions in found.items()
    )
    return Verdict(claim, said, words, all(c.value > 0 for cs in found.values() for c in cs))


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
