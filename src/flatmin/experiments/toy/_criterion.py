"""Which optimizer is best where: paired comparisons over seeds, and their regions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flatmin.compare.statistics import t_quantile
from flatmin.experiments.toy._bands import widening

NAMES = ("Adam", "SAM", "ASAM")
BEST_AT = (
    "Best at which test variances (undecided: the paired 95 % band over all test variances "
    "includes zero, or excludes it over less than two units)"
)
"""Title of a table of ``regions``."""

_UNDECIDED = "undecided"
_PLACES = 4  # of the stored numbers, after the decimal point

MEASURES = ("loss", "error rate")


def summarize(scores: Tensor) -> dict[str, Any]:
    """Mean and standard error over seeds: ``[variances, seeds, test variances]`` to two lists."""
    seeds = scores.shape[1]
    spread = scores.double().std(dim=1) if seeds > 1 else scores[:, 0].double() * float("nan")
    return {
        "mean": rounded(scores.double().mean(dim=1)),
        "standard_error": rounded(spread / seeds**0.5),
    }


def compare(scores: dict[str, Tensor]) -> dict[str, Any]:
    """Compare optimizers by seed, and find the best at each training and test variance.

    Args:
        scores: The lower the better, ``[variances, seeds, test variances]`` for each name.

    Returns:
        ``pairs``: for "A − B", the mean difference and the half-width of its 95 % interval (t);
        ``widening``: what makes of them bands over a row, as :func:`widening` has it;
        ``best``: the number in ``NAMES`` of the lowest mean; ``clear``: whether the band of its
        difference to every other one excludes zero.
    """
    means = np.stack([scores[name].double().mean(dim=1).numpy() for name in NAMES])
    best = means.argmin(axis=0)
    differences = {
        (i, j): (scores[one] - scores[other]).double()
        for i, one in enumerate(NAMES)
        for j, other in enumerate(NAMES[:i])
    }
    wider = widening(torch.cat(list(differences.values()), dim=2))
    single = torch.tensor([row[0] for row in wider], dtype=torch.float64)[:, None]
    clear = np.ones_like(best, dtype=bool)
    pairs = {}
    for (i, j), of_pair in differences.items():
        mean, half = of_pair.mean(dim=1), half_width(of_pair)
        pairs[f"{NAMES[i]} − {NAMES[j]}"] = {"mean": rounded(mean), "half_width": rounded(half)}
        decided = (mean.abs() > half * single).numpy()
        clear &= decided | ((best != i) & (best != j))
    return {
        "pairs": pairs,
        "widening": [[round(factor, 4) for factor in row] for row in wider],
        "best": best.tolist(),
        "clear": clear.astype(int).tolist(),
    }


def half_width(differences: Tensor) -> Tensor:
    """Half-width of the 95 % t-interval of a mean over seeds, the second dimension."""
    seeds = differences.shape[1]
    if seeds < 2:
        return differences[:, 0] * float("nan")
    half: Tensor = differences.std(dim=1) / seeds**0.5 * t_quantile(seeds - 1)
    return half


def difference(comparison: dict[str, Any], pair: str, row: int, column: int) -> tuple[float, float]:
    """Mean and half-width of a pair at a training variance (row) and a test variance (column)."""
    stored = comparison["pairs"][pair]
    half = stored["half_width"][row][column]
    return stored["mean"][row][column], float("inf") if half is None else half


def regions(comparison: dict[str, Any], row: int, tested: Sequence[float]) -> str:
    """Where each optimizer is best, in words: "Adam 1–6.5, undecided 7–20, ASAM 20.5–79.5".

    Each place takes the most frequent label within two units of variance, and a lead over less than
    two units counts as undecided: the test sets differ, and a comparison near its limit would
    flicker from one to the next.
    """
    raw = [
        NAMES[best] if clear else _UNDECIDED
        for best, clear in zip(comparison["best"][row], comparison["clear"][row], strict=True)
    ]
    labels = [Counter(raw[max(0, i - 4) : i + 5]).most_common(1)[0][0] for i in range(len(raw))]
    for label, start, end in _stretches(labels):
        if label != _UNDECIDED and tested[end - 1] - tested[start] < 2:
            labels[start:end] = [_UNDECIDED] * (end - start)
    return ", ".join(
        f"{label} {tested[start]:g}–{tested[end - 1]:g}" for label, start, end in _stretches(labels)
    )


def crossing(
    curves: dict[str, Any], pair: tuple[str, str], row: int, tested: Sequence[float]
) -> str:
    """Test variance from which on the first stays below the second in the mean; in words."""
    first, second = (curves[name]["mean"][row] for name in pair)
    above = [index for index, (a, b) in enumerate(zip(first, second, strict=True)) if a >= b]
    if not above:
        return "everywhere"
    return f"{tested[above[-1] + 1]:g}" if above[-1] + 1 < len(tested) else "never"


def _stretches(labels: Sequence[str]) -> list[tuple[str, int, int]]:
    """Runs of equal labels: label, first place, place after the last."""
    starts = [i for i in range(len(labels)) if i == 0 or labels[i] != labels[i - 1]]
    ends = [*starts[1:], len(labels)]
    return [(labels[start], start, end) for start, end in zip(starts, ends, strict=True)]


def shares(comparison: dict[str, Any]) -> dict[str, float]:
    """The share of a map on which each optimizer is best beyond doubt."""
    best, clear = np.array(comparison["best"]), np.array(comparison["clear"], dtype=bool)
    return {name: float((clear & (best == i)).mean()) for i, name in enumerate(NAMES)}


def shares_in_words(comparison: dict[str, Any]) -> str:
    """Those shares and the rest: "Adam 31 %, SAM 40 %, ASAM 2 %, undecided 27 %"."""
    found = shares(comparison)
    found[_UNDECIDED] = 1 - sum(found.values())
    return ", ".join(f"{name} {share:.0%}" for name, share in found.items()).replace("%", " %")


def rounded(values: Tensor) -> Any:
    """Plain numbers, short enough to store by the thousand."""
    return np.round(values.numpy(), _PLACES).tolist()
