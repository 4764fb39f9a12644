"""Tables of figure 5: losses and errors, crossings, regions, and networks that learnt nothing."""

from __future__ import annotations

from typing import Any

from flatmin.experiments.toy._criterion import BEST_AT, MEASURES, crossing, regions
from flatmin.record.item import Table

FORMS = ("as reported", "controlled")
# Training variance to the test variances at which the best optimizer changes; it gives no others.
REPORTED_CROSSINGS = {15.0: (5.0, 40.0)}
_PAIRS = ("ASAM below Adam", "SAM below ASAM")


def tables(record: dict[str, Any]) -> list[Table]:
    """Losses and error rates at four test variances, crossings, and regions in words."""
    numbers, variances = record["numbers"], record["config"]["variances"]
    tested = numbers["test_variances"]
    columns = [tested.index(v) for v in (1.0, 15.0, 40.0, 79.0)]
    values = [
        [form, measure, variance, name, *(_with_error(curve, row, c) for c in columns)]
        for form in FORMS
        for measure in MEASURES
        for row, variance in enumerate(variances)
        for name, curve in numbers["curves"][form][measure].items()
    ]
    crossings = [
        [
            variance,
            REPORTED_CROSSINGS.get(variance, "not given"),
            *(
                crossing(numbers["curves"][form]["loss"], pair, row, tested)
                for form in FORMS
                for pair in (("ASAM", "Adam"), ("SAM", "ASAM"))
            ),
        ]
        for row, variance in enumerate(variances)
    ]
    words = [
        [form, measure, variance, regions(numbers["comparisons"][form][measure], row, tested)]
        for form in FORMS
        for measure in MEASURES
        for row, variance in enumerate(variances)
    ]
    seeds = record["config"]["seeds"]
    nothing = [
        [form, name, *(f"{share:.0%}".replace("%", " %") for share in of_variance)]
        for form in FORMS
        for name, of_variance in numbers["one_class"][form].items()
    ]
    return [
        Table(
            f"Networks that predict one class for everything, of {seeds}",
            ["form", "optimizer", *(f"trained at {variance:g}" for variance in variances)],
            nothing,
        ),
        Table(
            "Test variance from which ASAM has a lower mean loss than Adam, and SAM than ASAM",
            ["trained at", "report", *(f"{form}: {p}" for form in FORMS for p in _PAIRS)],
            crossings,
        ),
        Table(
            BEST_AT,
            ["form", "measure", "trained at", "best"],
            words,
        ),
        Table(
            f"Mean ± standard error over {seeds} seeds, by test variance",
            ["form", "measure", "trained at", "optimizer", "1", "15", "40", "79"],
            values,
        ),
    ]


def _with_error(curve: dict[str, Any], row: int, column: int) -> str:
    error = curve["standard_error"][row][column]
    return f"{curve['mean'][row][column]:.3f} ± " + ("–" if error is None else f"{error:.3f}")
