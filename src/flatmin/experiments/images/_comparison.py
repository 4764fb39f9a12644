"""Optimizers compared in two ways, as reported and under control, and how that is shown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flatmin.compare.optimizers import OPTIMIZERS
from flatmin.compare.pairing import commits, ends
from flatmin.compare.panels import caption, color, dots, intervals, separate
from flatmin.compare.statistics import Mean, mean, paired, signed
from flatmin.experiments.images._study import Study
from flatmin.record.item import Table
from flatmin.record.style import letter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = ("Adam", "SAM", "ASAM")
TWICE = "Adam, twice the epochs"
Columns = dict[str, list[Any]]


def compare(
    study: Study, reported: Mapping[str, dict[str, Any]], bases: Sequence[str] = ("SGD", "Adam")
) -> dict[str, Any]:
    """Train as reported; choose; train under control, the bases also for twice the epochs.

    Args:
        study: What is trained on.
        reported: The report's choices, by optimizer; may be empty.
        bases: Base optimizers of the controlled part.

    Returns:
        ``chosen`` and ``search``; ``reported``, ``equal_epochs`` and ``equal_gradients``, the
        columns of :func:`ends` by optimizer; ``seconds`` of an epoch by optimizer and seed.
    """
    epochs = study.options.epochs
    names = [name for name in OPTIMIZERS if name.partition(" ")[0] in bases]
    first = study.train(reported_ways(reported, epochs), "as reported")
    choice = study.choose(names)
    chosen = choice["chosen"]
    same = study.train({name: (epochs, chosen[name]) for name in names}, "controlled")
    longer = study.train({name: (2 * epochs, chosen[name]) for name in bases}, "twice the epochs")
    columns = {name: ends(runs, epochs) for name, runs in first.items()}
    if "Adam" in first:
        columns[TWICE] = ends(first["Adam"], 2 * epochs)
    return {
        **study.describe(),
        **choice,
        "reported": columns,
        "equal_epochs": {name: ends(runs, epochs) for name, runs in same.items()},
        "equal_gradients": {name: ends(runs, 2 * epochs) for name, runs in longer.items()},
        "commits": commits(first, same, longer),
    }


def reported_ways(
    reported: Mapping[str, dict[str, Any]], epochs: int
) -> dict[str, tuple[int, dict[str, Any]]]:
    """The report's runs: epochs and choices.

    Adam goes on for as long again: its learning rate is constant, so that its first half is the
    report's run, and the second half is what more time would have brought.
    """
    return {name: (epochs * (1 + (name == "Adam")), choices) for name, choices in reported.items()}


def gains(numbers: Mapping[str, Any], against: str) -> dict[str, Mean]:
    """What SAM and ASAM add to each base, ``equal_epochs`` or ``equal_gradients``; last epoch."""
    return {
        f"{name} on {base}": paired(
            numbers["equal_epochs"][f"{base} + {name}"]["last"], columns["last"]
        )
        for base, columns in numbers[against].items()
        if "+" not in base
        for name in NAMES[1:]
    }


def only(name: str, differences: Mapping[str, Mean]) -> dict[str, Mean]:
    """Those of SAM, or those of ASAM."""
    return {words: d for words, d in differences.items() if words.split()[0] == name}


def listed(differences: Mapping[str, Mean]) -> str:
    """Differences with their intervals, one after the other."""
    return "; ".join(f"{name} {signed(difference)}" for name, difference in differences.items())


def figure(record: dict[str, Any], labels: Mapping[str, str]) -> Figure:
    """Accuracies as reported and under control, and the paired differences.

    Args:
        record: Whose numbers are those of :func:`compare`.
        labels: What to call the report's optimizers.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    numbers = record["numbers"]
    drawn = Figure(figsize=(11, 6.8), layout="constrained")
    axes = drawn.subplot_mosaic(
        [["a", "c"], ["b", "c"]], height_ratios=[1, 1.9], width_ratios=[1.15, 1]
    )
    a, b, c = (axes[name] for name in "abc")
    reported, longer = numbers["reported"], numbers["equal_gradients"]
    for key in ("best", "last"):
        rows = [(labels[name], color(name), reported[name][key]) for name in labels]
        dots(a, rows, hollow=key == "best")
    a.set(title="As reported: last epoch; hollow: best", xlabel="test accuracy in %")
    rows = []
    for name, columns in numbers["equal_epochs"].items():
        rows.append((name, color(name), columns["last"]))
        base, _, minimizer = name.partition(" + ")
        if minimizer == "ASAM":
            rows.append((f"{base}, twice the epochs", color(base), longer[base]["last"]))
    dots(b, rows)
    separate(b, range_middles(len(rows), 4))
    b.set(title="Controlled: last epoch", xlabel="test accuracy in %")
    _differences(c, numbers)
    letter([a, b, c])
    caption(drawn, record)
    return drawn


def reported_figure(
    record: dict[str, Any],
    rows: Mapping[str, tuple[str, Columns]],
    pairs: Sequence[tuple[str, str]],
    key: str,
    lines: Sequence[float] = (),
) -> Figure:
    """Accuracies as reported, and differences of pairs.

    Args:
        record: Whose figure it is.
        rows: Color and columns of :func:`ends`, by name.
        pairs: Names of what is compared with what.
        key: Of the columns that are compared, ``best`` or ``last``.
        lines: Where the differences are separated.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 3.6), layout="constrained")
    left, right = drawn.subplots(1, 2, width_ratios=[1.15, 1])
    for which in ("best", "last"):
        points = [
            (name.replace(", ", ",\n"), shade, columns[which])
            for name, (shade, columns) in rows.items()
        ]
        dots(left, points, hollow=which == "best")
    left.set(title="As reported: last epoch; hollow: best", xlabel="test accuracy in %")
    intervals(
        right,
        [
            (
                f"{one} − {other}".replace(", ", ",\n"),
                rows[one][0],
                rows[one][1][key],
                rows[other][1][key],
            )
            for one, other in pairs
        ],
    )
    separate(right, list(lines))
    right.set(
        title="Paired by seed: mean, 95 % interval",
        xlabel=f"difference of test accuracy, {key} epoch, points",
    )
    letter([left, right])
    caption(drawn, record)
    return drawn


def range_middles(rows: int, step: int) -> list[float]:
    """Where a line goes after every few rows."""
    return [place - 0.5 for place in range(step, rows, step)]


def _differences(ax: Axes, numbers: dict[str, Any]) -> None:
    reported, equal = numbers["reported"], numbers["equal_epochs"]
    rows = [
        (
            f"{name} − Adam\nas reported",
            color(name),
            reported[name]["last"],
            reported["Adam"]["last"],
        )
        for name in NAMES[1:]
    ]
    for base in numbers["equal_gradients"]:
        for words, key in (("epochs", "equal_epochs"), ("gradients", "equal_gradients")):
            rows += [
                (
                    f"{base} + {name} − {base}\nequal {words}",
                    color(name),
                    equal[f"{base} + {name}"]["last"],
                    numbers[key][base]["last"],
                )
                for name in NAMES[1:]
            ]
    intervals(ax, rows)
    separate(ax, [1.5, *(5.5 for _ in range(len(rows) > 6))])
    ax.set(
        title="Paired by seed: mean, 95 % interval", xlabel="difference of test accuracy, points"
    )


def tables(record: dict[str, Any]) -> list[Table]:
    """Accuracies as reported and under control, with the paired differences."""
    numbers, epochs = record["numbers"], record["config"]["epochs"]
    reported = [
        [
            name,
            2 * epochs if name == TWICE else epochs,
            str(mean(columns["last"])),
            f"{mean(columns['best'])} ({_middle(columns['best_epoch'])})",
            str(mean(columns["running"])),
            str(paired(columns["running"], columns["last"])),
        ]
        for name, columns in numbers["reported"].items()
    ]
    controlled = [
        [
            name,
            length,
            str(mean(columns["last"])),
            *_against(name, columns, numbers),
            str(mean(columns["train"])),
            str(paired(columns["train"], columns["last"])),
        ]
        for key, length in (("equal_epochs", epochs), ("equal_gradients", 2 * epochs))
        for name, columns in numbers[key].items()
    ]
    header = ("optimizer", "epochs", "test")
    found = [
        Table(
            "As reported: accuracy in %, mean ± standard error over seeds; training accuracy on "
            "the augmented batches, as the report plots it",
            (*header, "best test (epoch)", "train", "train − test"),
            reported,
        ),
        Table(
            "Controlled: accuracy in %, last epoch; differences in points, paired by seed, with "
            "95 % intervals; training accuracy without augmentation",
            (*header, "gain, equal epochs", "gain, equal gradients", "train", "train − test"),
            controlled,
        ),
    ]
    return found if reported else found[1:]


def _against(name: str, columns: dict[str, list[Any]], numbers: dict[str, Any]) -> list[str]:
    base, _, minimizer = name.partition(" + ")
    if not minimizer:
        return ["", ""]
    return [
        signed(paired(columns["last"], numbers[key][base]["last"]))
        for key in ("equal_epochs", "equal_gradients")
    ]


def _middle(values: Sequence[Any]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):g}" if known else "–"
