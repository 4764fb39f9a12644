"""Tables and text: does sharpness awareness help where there are no images?

Claim: What helps on images helps on other data too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.compare import compare
from flatmin.compare.figure import draw_differences
from flatmin.compare.judge import number
from flatmin.compare.statistics import mean, paired
from flatmin.record.item import Table, Verdict
from flatmin.record.progress import progress
from flatmin.record.style import letter, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASKS = {
    "digits": "handwritten digits as a table",
    "wine": "wine",
    "breast_cancer": "breast cancer",
    "text": "text",
}
_KEPT = ("answer", "task", "config", "differences", "arms", "troubles", "commits")
_LEFT_OUT = ("curves", "held", "lr_end", "last")  # long, and on no page
_HOLDS = {"helps": True, "hurts": False, "no": False, "undecided": None}


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
        kept = {key: comparison.record[key] for key in _KEPT}
        kept["arms"] = {
            arm: {key: value for key, value in columns.items() if key not in _LEFT_OUT}
            for arm, columns in kept["arms"].items()
        }
        found[name] = kept
    return {"tasks": found}


def draw(record: dict[str, Any]) -> Figure:
    """The paired differences of each task, in its own unit."""
    tasks = record["numbers"]["tasks"]
    rows = (len(tasks) + 1) // 2
    figure, axes = subplots(rows, 2, width=11, height=3.1 * rows)
    for ax, (name, found) in zip(axes.flat, tasks.items(), strict=False):
        draw_differences(ax, found)
        ax.set_title(TASKS[name].capitalize())
        if not found["task"]["unit"]:
            ax.set_xlabel("gain in bits per character (gray: less than matters)")
    for ax in list(axes.flat)[len(tasks) :]:
        ax.remove()
    letter(list(axes.flat)[: len(tasks)])
    return figure


def answer(record: dict[str, Any]) -> str:
    """What is clear on each task, and how much would have been."""
    said = []
    for name, found in record["numbers"]["tasks"].items():
        rows = found["differences"]
        clear = [
            f"{row['arm'].upper()} {row['verdict']} at equal {row['at']}, {_difference(row, found)}"
            for row in rows
            if row["verdict"] in ("helps", "hurts")
        ]
        words = "; ".join(clear) or "no difference is clear"
        seen = sorted(row["detectable"] for row in rows if row["detectable"] is not None)
        if seen:
            least, most = (number(value, _worth(found)) for value in (seen[0], seen[-1]))
            seeds = found["config"]["seeds"]
            words += f" ({seeds} seeds would have shown {least} to {most}{_unit(found)})"
        said.append(f"{TASKS[name].capitalize()}: {words}.")
    return " ".join(said)


def check(record: dict[str, Any]) -> list[Verdict]:
    """Whether each arm helps on each task, at equal epochs and at equal gradients."""
    return [
        Verdict(
            f"{row['arm'].upper()} helps on {TASKS[name]} (equal {row['at']})",
            "not asked",
            f"{_difference(row, found)}{': undecided' * (row['verdict'] == 'undecided')}",
            _HOLDS[row["verdict"]],
            own=True,
        )
        for name, found, row in _rows(record)
    ]


def tables(record: dict[str, Any]) -> list[Table]:
    """The metric of each arm with what was chosen for it, and the differences."""
    levels = [
        [
            TASKS[name],
            arm,
            columns["epochs"],
            str(mean(columns["value"])),
            columns["lr"],
            columns["rho"],
            "yes" if columns["at_edge"] else "",
        ]
        for name, found in record["numbers"]["tasks"].items()
        for arm, columns in found["arms"].items()
    ]
    differences = [
        [
            TASKS[name],
            f"{row['arm']} − {row['reference']}",
            row["at"],
            _difference(row, found),
            f"{row['p']:.3f}",
            None if row["detectable"] is None else number(row["detectable"], _worth(found)),
            row["verdict"],
        ]
        for name, found, row in _rows(record)
    ]
    return [
        Table(
            "The test part: mean ± standard error over seeds (accuracy in %; of the text bits per "
            "character, of which fewer are better), and what was chosen on the held-out part",
            ("data", "arm", "epochs", "metric", "lr", "rho", "at an edge of the search"),
            levels,
        ),
        Table(
            "Gains, paired by seed: mean with 95 % interval, p after Holm over the arms, and the "
            "least difference that so many seeds would have shown",
            ("data", "difference", "equal", "gain", "p (Holm)", "detectable", "verdict"),
            differences,
        ),
    ]


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
        "**How a claim is judged**: an arm helps where p is at most 5 % after Holm's correction "
        "over the arms; it does not where it hurts in the same way, or where the 95 % interval "
        "ends below what matters, half a point of accuracy or a hundredth of the bits.",
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
            by = number(abs(loss.value), _worth(found))
            worse.append(f"on {TASKS[name]} by {by}{_unit(found)}")
    return [
        "**Twice the epochs are too many** for the base "
        f"{' and '.join(worse)}: it learns its few examples by heart, and a gain over it at equal "
        "gradients is one over a base that should have stopped."
    ] * bool(worse)


def _rows(record: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for name, found in record["numbers"]["tasks"].items():
        for row in found["differences"]:
            yield name, found, row


def _difference(row: dict[str, Any], found: dict[str, Any]) -> str:
    value, low, high = (_signed(row[key], found) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]{_unit(found)}"


def _unit(found: dict[str, Any]) -> str:
    """The unit of the metric, bits for that of the text."""
    return f" {found['task']['unit'] or 'bits'}"


def _signed(value: float | None, found: dict[str, Any]) -> str:
    if value is None:
        return "–"
    return f"{'+' * (value >= 0)}{number(value, _worth(found))}"


def _worth(found: dict[str, Any]) -> float:
    return float(found["config"]["worth"])
