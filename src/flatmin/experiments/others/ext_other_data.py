"""Tables and text: does sharpness awareness help where there are no images?

Claim: What helps on images helps on other data too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.compare import compare
from flatmin.compare.judge import number
from flatmin.compare.statistics import paired
from flatmin.experiments import _compared as compared
from flatmin.record.item import Table, Verdict
from flatmin.record.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASKS = {
    "digits": "handwritten digits as a table",
    "wine": "wine",
    "breast_cancer": "breast cancer",
    "text": "text",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Three tables, each cut anew by every seed, and one text."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Which of digits, wine, breast_cancer and text."""
    seeds: int = 20
    """Splits of each table, each with a start of its own."""
    epochs: int = 40
    """Passes over a table."""
    text_seeds: int = 5
    """Starts on the text."""
    text_epochs: int = 16
    """Passes over the text."""
    trials: int = 6
    """Settings of learning rate and radius that are tried for each arm; two more follow."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.tasks if name not in TASKS]
        if unknown or not self.tasks:
            raise ValueError(
                f"tasks must be some of {', '.join(TASKS)}, got {', '.join(unknown) or 'none'}."
            )


FULL = Config()
QUICK = Config(tasks=("wine", "breast_cancer"), seeds=3, epochs=3, trials=1)


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Compare on each task: SAM and ASAM with the base, for as many epochs and gradients."""
    found = {}
    for name in progress(config.tasks, "ext_other_data: tasks"):
        text = name == "text"
        comparison = compare(
            Path(__file__).with_name(f"_{name}.py"),
            seeds=config.text_seeds if text else config.seeds,
            epochs=config.text_epochs if text else config.epochs,
            arms=("gradients", "sam", "asam"),
            trials=config.trials,
            out=scratch / name,
            device="cpu",
            workers=1,
        )
        found[name] = compared.kept(comparison.record)
    return {"tasks": found}


def draw(record: dict[str, Any]) -> Figure:
    """The paired differences of each task, in its own unit."""
    return compared.figure(record["numbers"]["tasks"], TASKS)


def answer(record: dict[str, Any]) -> str:
    """What is clear on each task, and how much would have been."""
    return compared.answer(record["numbers"]["tasks"], TASKS)


def check(record: dict[str, Any]) -> list[Verdict]:
    """Whether each arm helps on each task, at equal epochs and at equal gradients."""
    return compared.verdicts(record["numbers"]["tasks"], TASKS)


def tables(record: dict[str, Any]) -> list[Table]:
    """The metric of each arm with what was chosen for it, and the differences."""
    metric = "accuracy in %; of the text bits per character, of which fewer are better"
    return compared.tables(record["numbers"]["tasks"], TASKS, metric)


def notes(record: dict[str, Any]) -> list[str]:
    """What the data and the networks are, and how it was done."""
    tasks = record["numbers"]["tasks"]
    networks = "; ".join(
        f"{TASKS[name]}: {found['task']['source']}, {found['task']['parameters']:,} parameters, "
        f"{found['task']['examples']['trained on']:,} examples trained on, "
        f"{found['task']['examples']['held out']:,} held out, "
        f"{found['task']['examples']['tested on']:,} tested on, {found['config']['seeds']} seeds, "
        f"{found['config']['epochs']} epochs"
        for name, found in tasks.items()
    )
    commits = sorted({commit for found in tasks.values() for commit in found["commits"]})
    return [
        f"**Data and networks.** {networks[0].upper()}{networks[1:]}. On tables the network is a "
        "perceptron of two hidden layers of 64 units; on text it is a transformer of two causal "
        "blocks that predicts the next character of the documentation that ships with Python.",
        "**How it was done**: by `flatmin compare`, AdamW with a cosine; starts and batches are "
        "shared by seed; learning rate and radius of each arm are chosen on a held-out part with "
        "the same number of trials, at full length, from a start that is not counted; the last "
        "epoch counts. Each seed cuts a table anew. The cuts overlap, so the intervals are "
        "widened for it (Nadeau and Bengio 2003).",
        compared.rule("half a point of accuracy or a hundredth of the bits"),
        *_too_long(record),
        f"Runs were made at commit {', '.join(commits)}.",
    ]


def _too_long(record: dict[str, Any]) -> list[str]:
    """Where a base that trains for longer is the worse for it."""
    worse = []
    for name, found in record["numbers"]["tasks"].items():
        sign = 1.0 if found["task"]["better"] == "larger" else -1.0
        base, longer = (found["arms"].get(arm, {}).get("value") for arm in ("base", "base × 2"))
        if base and longer and (loss := paired(base, longer)).sign == sign:
            by = number(abs(loss.value), float(found["config"]["worth"]))
            worse.append(f"on {TASKS[name]} by {by}{compared.unit(found)}")
    return [
        "**Twice the epochs are too many** for the base "
        f"{' and '.join(worse)}: it learns its few examples by heart, and a gain over it at equal "
        "gradients is one over a base that should have stopped."
    ] * bool(worse)
