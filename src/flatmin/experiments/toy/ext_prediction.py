"""Does sharpness predict how well a network generalizes?

Claim: Sharpness-aware optimizers find flatter minima, and flatter minima generalize better.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.experiments.toy._beside import NEAR
from flatmin.experiments.toy._flatness import IDENTITY, INVARIANT, WORST
from flatmin.experiments.toy._grid import Config
from flatmin.experiments.toy._prediction_panels import panels
from flatmin.experiments.toy._prediction_tables import tables
from flatmin.experiments.toy._prediction_words import answered, interval, judged, sign
from flatmin.experiments.toy._ranking import COPIES, EQUAL, SAME, ranked
from flatmin.experiments.toy._scored import LOSS, TRAIN, scored
from flatmin.experiments.toy._study import ROUNDING
from flatmin.record.blocks import written
from flatmin.record.item import Verdict

__all__ = [
    "FULL", "QUICK", "Config", "answer", "check", "draw", "finding", "notes", "run", "tables",
]  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FULL = Config()
QUICK = Config(
    draws=3,
    variances=(15.0,),
    epochs=(10, 30),
    batches=(16,),
    radii=(0.5,),
    rates=(1e-2,),
    steps=5,
    samples=4,
    products=8,
)

# What a τ of sharpness with the test loss says of flatter networks, by its sign.
_SAID = {1: "the lower", -1: "the higher", 0: "no clearly other"}


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Train the grid, measure every network and its copy, and compare the rankings."""
    return ranked(config, scored(config, scratch))


def draw(record: dict[str, Any]) -> Figure:
    """Who lies flatter; what measures say of generalization; the same at equal training loss."""
    return panels(record["numbers"])


def answer(record: dict[str, Any]) -> str:
    """Both questions, one after the other."""
    return answered(record["numbers"])


def finding(record: dict[str, Any]) -> str:
    """The answer to the second question, in numbers."""
    tau = record["numbers"]["tau"]
    before, after = (
        [interval(tau[scope][LOSS][f"{WORST} | {scale}"]) for scale in (INVARIANT, IDENTITY)]
        for scope in (SAME, COPIES)
    )
    return (
        f"Over {record['numbers']['networks']:,} small networks the flatter ones have "
        f"{_SAID[sign(tau[SAME][LOSS][f'{WORST} | {INVARIANT}'])]} test loss (Kendall's τ = "
        f"{before[0]} with invariant worst-case sharpness), and on rescaled copies, which "
        f"cannot fool that measure, SAM's τ goes from {before[1]} to {after[1]}."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """The claims of appendix A, and what the copies show."""
    return judged(record["numbers"])


def notes(record: dict[str, Any]) -> list[str]:
    """What was varied, how τ is taken, and where it ends."""
    config, numbers = record["config"], record["numbers"]
    return [
        f"**The networks**: {numbers['networks']:,} of the report's perceptrons (table 2), every "
        "combination of the options below: Adam alone, which is ρ = 0, SAM and published ASAM "
        "around it, learning rate, decoupled weight decay, batch size, epochs, variance of the "
        f"points; {config['draws']} draws of {config['points']} training points, a start and an "
        "order, which all that share a draw share; tested on "
        f"{config['test_points']:,} points of the same variance. So few points can be learnt by "
        "heart. Training ends with the schedule, not at a point without slope, so these are minima "
        "as the report's are.",
        f"**The measures** are taken on all training points: ρ = {config['sam_radius']:g} for T = "
        f"1, in parameter units, and {config['radius']:g} for the others; the box (p = ∞) a tenth "
        "of it, the ball of the average ten times. The trace is exact, the average goes in the "
        f"same {config['samples']} directions for all.",
        "**τ** is Kendall's τ-b; intervals are t times the standard error of 2,000 resamples "
        "of the draws, since networks that share points and start are no independent ones. A τ "
        "above zero says: the sharper, the larger the target. *Within one hyper-parameter* pairs "
        "differ in that alone; *draw* are pairs that are alike but for points, start and order.",
        "**At equal training loss** a larger gap *is* a larger test loss, so that a measure cannot "
        "go with the one and against the other. The partial τ given the training loss does: it "
        "takes away what is linear in ranks, and the training loss rules both by more than that. "
        "So pairs of one draw are compared whose training losses differ by at most "
        f"{NEAR:g} nats ({100 * numbers['equally trained']:.0f} % of them; without networks that "
        "predict one class). Even among these the training loss keeps a τ of "
        f"{interval(numbers['tau'][EQUAL][LOSS][TRAIN])} with the test loss, since networks that "
        "have learnt little differ by less than that; and so the report's sentence about minima "
        "of equal loss is judged by gap and test loss together, and is undecided where the two "
        "contradict each other.",
        "**Copies**: each hidden unit of each network is scaled "
        f"{config['scalings']} times over by U[0.5, 1.5], its bias too, and what it feeds by the "
        "inverse. They compute the same (outputs move by at most "
        f"{written(numbers['moved'], 1)}), so whatever ranks networks should rank them alike.",
        "**Where it ends.** One small task, one kind of network, one base optimizer. The sign of "
        "such a τ changes from one setting to the next (Andriushchenko et al. 2023, "
        "arXiv:2302.07011; Jiang et al. 2020, arXiv:1912.02178); here most of the grid has learnt "
        "too little rather than too much, and there flat means: not yet learnt.",
        ROUNDING,
    ]
