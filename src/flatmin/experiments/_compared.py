"""Comparisons by ``flatmin.compare`` as an item shows them: several tasks, beside one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flatmin.compare.figure import draw_differences
from flatmin.compare.judge import number
from flatmin.compare.statistics import mean
from flatmin.record.item import Table, Verdict
from flatmin.record.style import letter, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KEPT = ("answer", "task", "config", "differences", "arms", "troubles", "commits")
_LEFT_OUT = ("curves", "held", "lr_end", "last")  # long, and on no page
_HOLDS = {"helps": True, "hurts": False, "no": False, "undecided": None}

Tasks = Mapping[str, dict[str, Any]]
"""What is kept of comparisons, by the name of the task."""


def kept(record: Mapping[str, Any]) -> dict[str, Any]:
    """What an item keeps of a comparison."""
    found = {key: record[key] for key in _KEPT}
    found["arms"] = {
        arm: {key: value for key, value in columns.items() if key not in _LEFT_OUT}
        for arm, columns in record["arms"].items()
    }
    return found


def figure(tasks: Tasks, words: Mapping[str, str]) -> Figure:
    """The paired differences of each task, in its own unit."""
    rows = (len(tasks) + 1) // 2
    drawn, axes = subplots(rows, 2, width=11, height=3.1 * rows)
    for ax, (name, found) in zip(axes.flat, tasks.items(), strict=False):
        draw_differences(ax, found)
        ax.set_title(words[name][0].upper() + words[name][1:])
        if not found["task"]["unit"]:
            ax.set_xlabel("gain in bits per character (gray: less than matters)")
    for ax in list(axes.flat)[len(tasks) :]:
        ax.remove()
    letter(list(axes.flat)[: len(tasks)])
    return drawn


def answer(tasks: Tasks, words: Mapping[str, str]) -> str:
    """What is clear on each task, and how much would have been."""
    said = []
    for name, found in tasks.items():
        differences = found["differences"]
        clear = [
            f"{row['arm'].upper()} {row['verdict']} at equal {row['at']}, {difference(row, found)}"
            for row in differences
            if row["verdict"] in ("helps", "hurts")
        ]
        sentence = "; ".join(clear) or "no difference is clear"
        seen = sorted(row["detectable"] for row in differences if row["detectable"] is not None)
        if seen:
            least, most = (number(value, _worth(found)) for value in (seen[0], seen[-1]))
            seeds = found["config"]["seeds"]
            sentence += f" ({seeds} seeds would have shown {least} to {most}{unit(found)})"
        said.append(f"{words[name][0].upper()}{words[name][1:]}: {sentence}.")
    return " ".join(said)


def verdicts(tasks: Tasks, words: Mapping[str, str]) -> list[Verdict]:
    """Whether each arm helps on each task, at equal epochs and at equal gradients."""
    return [
        Verdict(
            f"{row['arm'].upper()} helps on {words[name]} (equal {row['at']})",
            "not asked",
            f"{difference(row, found)}{': undecided' * (row['verdict'] == 'undecided')}",
            _HOLDS[row["verdict"]],
            own=True,
        )
        for name, found, row in _rows(tasks)
    ]


def tables(tasks: Tasks, words: Mapping[str, str], metric: str) -> list[Table]:
    """The metric of each arm with what was chosen for it, and the differences."""
    levels = [
        [
            words[name],
            arm,
            columns["epochs"],
            str(mean(columns["value"])),
            columns["lr"],
            columns["rho"],
            "yes" if columns["at_edge"] else "",
        ]
        for name, found in tasks.items()
        for arm, columns in found["arms"].items()
    ]
    differences = [
        [
            words[name],
            f"{row['arm']} − {row['reference']}",
            row["at"],
            difference(row, found),
            f"{row['p']:.3f}",
            None if row["detectable"] is None else number(row["detectable"], _worth(found)),
            row["verdict"],
        ]
        for name, found, row in _rows(tasks)
    ]
    return [
        Table(
            f"The test part: mean ± standard error over seeds ({metric}), and what was chosen on "
            "the held-out part",
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


def rule(worth: str) -> str:
    """How a claim is judged, where so much matters."""
    return (
        "**How a claim is judged**: an arm helps where p is at most 5 % after Holm's correction "
        "over the arms; it does not where it hurts in the same way, or where the 95 % interval "
        f"ends below what matters, {worth}."
    )


def difference(row: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """A gain with its interval and unit."""
    value, low, high = (_signed(row[key], found) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]{unit(found)}"


def unit(found: Mapping[str, Any]) -> str:
    """The unit of the metric, bits for that of the text."""
    return f" {found['task']['unit'] or 'bits'}"


def _rows(tasks: Tasks) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for name, found in tasks.items():
        for row in found["differences"]:
            yield name, found, row


def _signed(value: float | None, found: Mapping[str, Any]) -> str:
    if value is None:
        return "–"
    return f"{'+' * (value >= 0)}{number(value, _worth(found))}"


def _worth(found: Mapping[str, Any]) -> float:
    return float(found["config"]["worth"])
