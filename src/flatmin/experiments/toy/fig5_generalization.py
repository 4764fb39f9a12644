"""Test loss against test variance for Adam, SAM and ASAM.

Claim: Near the training variance and beyond it ASAM generalizes best, far above it SAM; below it
Adam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.experiments.toy._criterion import (
    MEASURES,
    NAMES,
    compare,
    shares_in_words,
    summarize,
)
from flatmin.experiments.toy._fig5_tables import FORMS, REPORTED_CROSSINGS, tables
from flatmin.experiments.toy._fig5_words import gaps, nothing_learnt, smaller_gap
from flatmin.experiments.toy._maps import draw_map, map_legend
from flatmin.experiments.toy._study import (
    ROUNDING,
    TEST_VARIANCES,
    Way,
    asam,
    invariant_asam,
    one_class,
    sam,
    test,
    train,
)
from flatmin.experiments.toy._verdicts import RULE, judge
from flatmin.record.item import Verdict
from flatmin.record.style import COLORS, EXACT, band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FULL", "QUICK", "Config", "check", "draw", "finding", "notes", "run", "tables"]

INVARIANT = "ASAM, biases scaled, η = 0"


@dataclass(frozen=True, kw_only=True)
class Config:
    """The report's toy networks, many of each, in the report's form and in a controlled one."""

    seeds: int = 20
    """Training sets of each variance; each gives one network per optimizer and form."""
    variances: tuple[float, ...] = (1.0, 5.0, 10.0, 15.0, 25.0, 30.0)
    """Variances of the training sets."""
    epochs: int = 200
    """Epochs; the learning rate falls along a cosine over them."""
    points: int = 2000
    """Points of each training set and of each test set."""
    rho: float = 0.5
    """Radius for both SAM and ASAM."""


FULL = Config()
QUICK = Config(seeds=5, variances=(15.0,), epochs=40)


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Train all networks at once, and test each on all test variances."""
    balls = (None, sam(config.rho), asam(config.rho))
    ways = [Way(ball, as_reported=form == FORMS[0]) for form in FORMS for ball in balls]
    trained = train(
        [*ways, Way(invariant_asam(config.rho))],
        config.variances,
        seeds=config.seeds,
        epochs=config.epochs,
        points=config.points,
        scratch=scratch,
        description="fig5: training",
    )
    numbers: dict[str, Any] = {
        "test_variances": TEST_VARIANCES.tolist(),
        "diverged": len(trained.diverged),
        "curves": {},
        "comparisons": {},
        "one_class": {},
        "gap": {},
    }
    measures = test(trained.params, config.points, "fig5: testing")
    nothing = one_class(trained.params, config.points).double().mean(dim=2)
    for start, form in zip((0, len(NAMES)), FORMS, strict=True):
        names = NAMES if form == FORMS[0] else (*NAMES, INVARIANT)
        numbers["curves"][form], numbers["comparisons"][form] = {}, {}
        numbers["one_class"][form] = {
            name: nothing[start + number].tolist() for number, name in enumerate(names)
        }
        for measure, scores in zip(MEASURES, measures, strict=True):
            named = {name: scores[start + number] for number, name in enumerate(names)}
            numbers["curves"][form][measure] = {n: summarize(s) for n, s in named.items()}
            numbers["comparisons"][form][measure] = compare(named)
            if measure == MEASURES[0]:
                numbers["gap"][form] = gaps(config.variances, named["Adam"] - named["ASAM"])
    return numbers


def finding(record: dict[str, Any]) -> str:
    """How much of section II comes out again."""
    said = [verdict for verdict in check(record) if not verdict.own]
    both = [{v.holds, v.controlled and v.controlled[1]} for v in said]
    sure, not_so = both.count({True}), sum(False in forms for forms in both)
    return (
        f"Of {len(said)} sentences of the report on which optimizer is best on its toy data, and "
        f"where, {sure} hold both as reported and under control (failing in either form: "
        f"{not_so}, undecided: {len(said) - sure - not_so})."
    )


def draw(record: dict[str, Any]) -> Figure:
    """Curves of both forms with standard errors, and the maps of the best optimizer."""
    from matplotlib.figure import Figure

    numbers, variances = record["numbers"], record["config"]["variances"]
    columns = min(3, len(variances))
    rows = -(-len(variances) // columns)
    blocks = [("as reported", "loss"), ("controlled", "loss"), ("controlled", "error rate")]
    heights = [*([2.35 * rows + 0.5] * len(blocks)), 0.32 * len(variances) + 1.5]
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (form, measure) in zip(parts, blocks, strict=False):
        name = "test loss (cross-entropy)" if measure == "loss" else "test error rate"
        part.suptitle(f"{name}, {form}", fontweight="bold", x=0.01, ha="left")
        axes = part.subplots(rows, columns, squeeze=False, sharex=True).flatten()
        for index, (ax, variance) in enumerate(zip(axes, variances, strict=False)):
            _curves(ax, numbers, form, measure, index)
            ax.set_title(f"trained at variance {variance:g}", fontweight="normal")
            ax.axvline(variance, color="black", lw=0.8, ls=":")
            if measure == "loss" and variance in REPORTED_CROSSINGS:
                places = REPORTED_CROSSINGS[variance]
                label = "best changes, in the report"
                bottom = [0.02] * len(places)
                ax.plot(places, bottom, "k^", ms=5, transform=ax.get_xaxis_transform(), label=label)
                ax.legend(handles=ax.lines[-1:], loc="lower right", handlelength=0.8)
        for ax in axes[len(variances) :]:
            ax.remove()
        for ax in axes[max(0, len(variances) - columns) : len(variances)]:
            ax.set_xlabel("variance of the test set")
        axes[0].legend(loc="best")
    parts[-1].suptitle("lowest mean test loss", fontweight="bold", x=0.01, ha="left")
    for ax, form in zip(parts[-1].subplots(1, 2, sharey=True), FORMS, strict=True):
        draw_map(ax, numbers["comparisons"][form]["loss"], variances, numbers["test_variances"])
        ax.set_title(form, fontweight="normal")
        ax.set_xlabel("variance of the test set")
        if form == FORMS[0]:
            ax.set_ylabel("trained at")
    parts[-1].legend(handles=map_legend(), loc="outside lower center", ncols=5)
    return figure


def check(record: dict[str, Any]) -> list[Verdict]:
    """The sentences of section II, on average over seeds."""
    numbers = record["numbers"]
    found = judge(numbers["comparisons"], record["config"]["variances"], numbers["test_variances"])
    (words, holds), controlled = (smaller_gap(numbers["gap"][form]) for form in FORMS)
    claim = (
        "“(Figure 5e) the improvement in test errors between ASAM and ADAM is less clear because "
        "there isn't a big gap between their curves”"
    )
    return [*found, Verdict(claim, "trained at 30", words, holds, controlled)]


def notes(record: dict[str, Any]) -> list[str]:
    """How to read it, and the maps in a few words."""
    comparisons = record["numbers"]["comparisons"]
    return [
        "Share of the map on which an optimizer is best beyond doubt. "
        + " ".join(
            f"**By {measure}, {form}:** {shares_in_words(comparisons[form][measure])}."
            for measure in ("loss", "error rate")
            for form in FORMS
        ),
        RULE,
        nothing_learnt(record),
        "A lower loss far from the training variance need not mean better decisions: where many "
        "points lie on the wrong side, cross-entropy rewards outputs near one half, whatever side "
        "they are on. The error rates tell the two apart.",
        "As reported, an epoch slices `[i:i+32]` and so sees 109 of 2,000 points; every network "
        "has its own start and order. Controlled, it sees all points, and the optimizers share "
        "start and batches. Bands in the figure are standard errors over seeds; a map shows as "
        "best what is so beyond the band of its row.",
        ROUNDING,
    ]


_FEW_TICKS = (1, 1.5, 2, 3, 4, 5, 6, 7, 8)


def _curves(ax: Axes, numbers: dict[str, Any], form: str, measure: str, row: int) -> None:
    from matplotlib.ticker import LogLocator

    for name, curve in numbers["curves"][form][measure].items():
        mean, error = curve["mean"][row], curve["standard_error"][row]
        color = COLORS.get(name, EXACT)
        style = "-" if name in COLORS else "--"
        ax.plot(numbers["test_variances"], mean, style, color=color, label=name, lw=1.4)
        band(ax, numbers["test_variances"], *_edges(mean, error), color)
    if measure == "loss":
        ax.set_yscale("log")
        low, high = ax.get_ylim()
        ax.yaxis.set_major_locator(LogLocator(subs=(1,) if high > 20 * low else _FEW_TICKS))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")


def _edges(mean: Sequence[float], error: Sequence[float | None]) -> tuple[list[float], list[float]]:
    pairs = [(m, e or 0.0) for m, e in zip(mean, error, strict=True)]
    return [m - e for m, e in pairs], [m + e for m, e in pairs]
