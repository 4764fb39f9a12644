"""What figure 5 shows beside its sentences: ASAM's lead over Adam, and who has learnt nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from flatmin.compare.statistics import mean
from flatmin.experiments.toy._criterion import rounded
from flatmin.experiments.toy._fig5_tables import FORMS
from flatmin.experiments.toy._study import TEST_VARIANCES
from flatmin.experiments.toy._verdicts import LEFT_OUT


def gaps(variances: Sequence[float], ahead: Tensor) -> dict[str, list[float | None]]:
    """By how much ASAM is below Adam beyond the training variance: for each variance and seed."""
    return {
        f"{variance:g}": rounded(of_row[:, variance <= TEST_VARIANCES].mean(dim=1))
        for variance, of_row in zip(variances, ahead, strict=True)
    }


def smaller_gap(found: dict[str, list[float]]) -> tuple[str, bool | None]:
    """Whether ASAM's lead at 30 is smaller than that at 15, seed by seed."""
    if not {"15", "30"} <= set(found):
        return LEFT_OUT, None
    less = [near - far for near, far in zip(found["15"], found["30"], strict=True)]
    half = mean(less).half
    words = ", ".join(f"{mean(found[at]).value:.3f} trained at {at}" for at in ("15", "30"))
    sign = mean(less).sign
    return (
        f"Adam − ASAM beyond the training variance: {words}; smaller by {mean(less).value:.3f} ± "
        f"{half:.3f}",
        None if not sign else sign > 0,
    )


def nothing_learnt(record: dict[str, Any]) -> str:
    """Who predicts one class for everything, in words."""
    shares, variances = record["numbers"]["one_class"], record["config"]["variances"]
    words = [
        f"{share:.0%} of {name}'s trained at {variance:g} {form}".replace("%", " %")
        for form in FORMS
        for name, of_variance in shares[form].items()
        for variance, share in zip(variances, of_variance, strict=True)
        if share
    ]
    said = ", ".join(words) if words else "none"
    return (
        "**Networks that predict one class for everything** on the widest test set, and so have "
        f"learnt nothing that decides: {said}. Their loss is that of a coin, 0.69, which is low "
        "where test points lie on the wrong side, and their error rate is one half."
    )
