"""The sentences of the report's section II, and the comparisons that each becomes.

Where a sentence speaks of "high variances" and names no limit, it is judged at the end of the
report's axis, where it is easiest to hold: any other limit would be ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from flatmin.experiments.toy._conditions import Condition, View

Sentence = Callable[[View], Iterator[Condition]]


def below_adam_far_off(name: str) -> Sentence:
    """Adam is above one of the others at the end of the axis."""

    def conditions(view: View) -> Iterator[Condition]:
        for variance in view.trained:
            yield view.below(name, "Adam", variance, view.tested[-1])

    return conditions


def adam_is_best_at_first(view: View) -> Iterator[Condition]:
    """Adam is best at test variance 1, the smallest."""
    for variance in view.trained:
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
    """SAM is best at the end of the axis, trained at variance 30."""
    if 30.0 in view.trained:
        yield from view.best("SAM", 30.0, view.tested[-1:])


def order_of_figure_5c(test: float, *pairs: str) -> Sentence:
    """The order of the curves of figure 5c at one test variance: "Adam ASAM" is Adam below ASAM."""

    def conditions(view: View) -> Iterator[Condition]:
        if 15.0 in view.trained:
            for low, high in (pair.split() for pair in pairs):
                yield view.below(low, high, 15.0, test)

    return conditions


FIGURE_5C: tuple[tuple[str, str, Sentence], ...] = (
    (
        "Trained at 15 (fig. 5c), test variance 1: Adam below ASAM below SAM",
        "0.29 < 0.32 < 0.55 (its code, seed 0)",
        order_of_figure_5c(1.0, "Adam ASAM", "ASAM SAM"),
    ),
    (
        "Trained at 15 (fig. 5c), test variance 40: ASAM and SAM below Adam",
        "0.59, 0.61 < 0.69 (its code, seed 0)",
        order_of_figure_5c(40.0, "ASAM Adam", "SAM Adam"),
    ),
    (
        "Trained at 15 (fig. 5c), test variance 79: SAM below ASAM below Adam",
        "0.65 < 0.78 < 1.03 (its code, seed 0)",
        order_of_figure_5c(79.0, "SAM ASAM", "ASAM Adam"),
    ),
)


def curves_behave_alike(view: View) -> Iterator[Condition]:
    """The order at the left end and its reverse at the right, but for the noisiest training set."""
    for variance in view.trained:
        if variance < max(view.trained) or len(view.trained) == 1:
            for low, high in (("Adam", "ASAM"), ("ASAM", "SAM")):
                yield view.below(low, high, variance, view.tested[0])
                yield view.below(high, low, variance, view.tested[-1])


SENTENCES: tuple[tuple[str, str, Sentence], ...] = (
    *(
        (
            f"“Networks trained with ASAM and SAM generalize better than training with ADAM "
            f"because, for test datasets with high variances, the blue curve is always above”: "
            f"{name}",
            "always",
            below_adam_far_off(name),
        )
        for name in ("SAM", "ASAM")
    ),
    (
        "“The curves behave in the same way for the different variances […] (except for too noisy "
        "datasets)”: Adam, ASAM, SAM from below at the left end and from above at the right, for "
        "all but the noisiest",
        "all but 30",
        curves_behave_alike,
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
