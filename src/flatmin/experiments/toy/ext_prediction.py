"""Does sharpness predict how well a network generalizes?

Claim: Sharpness-aware optimizers find flatter minima, and flatter minima generalize better.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.experiments.toy._grid import Config
from flatmin.experiments.toy._prediction_panels import panels
from flatmin.experiments.toy._prediction_words import judged
from flatmin.experiments.toy._ranking import ranked
from flatmin.experiments.toy._scored import scored
from flatmin.record.item import Verdict

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


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Train the grid, measure every network and its copy, and compare the rankings."""
    return ranked(config, scored(config, scratch))


def draw(record: dict[str, Any]) -> Figure:
    """Who lies flatter; what measures say of generalization; the same at equal training loss."""
    return panels(record["numbers"])


def check(record: dict[str, Any]) -> list[Verdict]:
    """The claims of appendix A, and what the copies show."""
    return judged(record["numbers"])
