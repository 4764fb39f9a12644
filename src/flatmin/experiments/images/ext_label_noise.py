"""A harder set: wrong labels, or CIFAR-100.

Claim: On another data set, harder to train, a greater difference between the optimizers could be
seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatmin.compare.panels import caption, color
from flatmin.compare.search import search_table
from flatmin.compare.statistics import Mean, mean, paired, subtract
from flatmin.compare.verdict import compared, decided, together
from flatmin.experiments.images import _comparison as comparison
from flatmin.experiments.images._study import QUICK_STUDY, Study, StudyOptions
from flatmin.experiments.images._words import HOW, judged, limits
from flatmin.record.item import Table, Verdict
from flatmin.record.style import INK, letter, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {"equal_epochs": "equal epochs", "equal_gradients": "equal gradients"}


@dataclass(frozen=True, kw_only=True)
class Config(StudyOptions):
    """The study of table 1 on training sets with wrong labels."""

    noise: tuple[float, ...] = (0.0, 0.2, 0.4)
    """Shares of the training labels that are replaced by another class at random."""
    bases: tuple[str, ...] = ("SGD", "Adam")
    """Base optimizers: SGD, Adam or both."""
    data100: str | None = None
    """Folder of CIFAR-100, which then takes the place of CIFAR-10."""
    sam_rhos: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5)
    """Radii of SAM to choose from; noise asks for larger ones."""
    asam_rhos: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """Radii of ASAM to choose from."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.noise or list(self.noise) != sorted(set(self.noise)):
            raise ValueError(
                f"noise must be shares in increasing order, such as 0,0.4, got {self.noise}."
            )


FULL = Config()
QUICK = Config(
    **{**QUICK_STUDY, "sam_rhos": (0.1,), "asam_rhos": (1.0,)}, noise=(0.0, 0.4), bases=("SGD",)
)


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Compare at each share of wrong labels; the choices are made anew, on labels as wrong."""
    levels = []
    for share in config.noise:
        study = Study(config, scratch, hundred=config.data100, noise=share)
        levels.append({"noise": share, **comparison.compare(study, {}, config.bases)})
    clean = Study(config, scratch, hundred=config.data100)
    return {**clean.describe(), "levels": levels}


def draw(record: dict[str, Any]) -> Figure:
    """Accuracy and gain against the share of wrong labels, a row for each base."""
    numbers, bases = record["numbers"], record["config"]["bases"]
    figure, axes = subplots(len(bases), 3, width=11, height=0.6 + 3.6 * len(bases), sharex=True)
    for row, base in zip(axes, bases, strict=True):
        _accuracies(row[0], numbers["levels"], base)
        for ax, key in zip(row[1:], KINDS, strict=True):
            _gains(ax, numbers["levels"], base, key)
        row[0].set_title(f"Around {base}: last epoch")
    for ax in axes[-1]:
        ax.set_xlabel("wrong training labels in %")
    letter(axes.flat)
    caption(figure, record)
    return figure


def answer(record: dict[str, Any]) -> str:
    """Whether the difference is greater on the harder set."""
    levels = record["numbers"]["levels"]
    clean, hardest = levels[0], levels[-1]
    said = []
    for level in levels:
        gains = comparison.gains(level, "equal_gradients")
        clauses = [compared(name, "its base", gain) for name, gain in gains.items()]
        said.append(f"With {level['noise']:.0%} of the labels wrong: {'; '.join(clauses)}.")
    if clean["noise"] or not hardest["noise"]:
        return f"At equal gradients: {' '.join(said)}"
    growth = _growth(hardest, clean, "equal_gradients")
    text = decided(
        together(growth.values()),
        "On the harder set the difference is greater",
        "On the harder set the difference is not greater for all of them",
    )
    return (
        f"{text}, at this size and at equal gradients. {' '.join(said)} The gain grows, in points, "
        f"by {comparison.listed(growth)}."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """Whether SAM and ASAM help on noisy labels, and more than on clean ones."""
    levels = record["numbers"]["levels"]
    found = []
    noisy = [level for level in levels if level["noise"]]
    for level in noisy:
        for key, words in KINDS.items():
            every = comparison.gains(level, key)
            for name in ("SAM", "ASAM"):
                gains = comparison.only(name, every)
                found.append(
                    judged(
                        record,
                        f"With {level['noise']:.0%} of the labels wrong, {name} is better than its "
                        f"base ({words})",
                        "SAM's robustness to label noise is cited",
                        (comparison.listed(gains), together(gains.values())),
                        own=key == "equal_gradients",
                    )
                )
    clean = [level for level in levels if not level["noise"]]
    if clean and noisy:
        for key, words in KINDS.items():
            every = _growth(noisy[-1], clean[0], key)
            for name in ("SAM", "ASAM"):
                growth = comparison.only(name, every)
                found.append(
                    judged(
                        record,
                        f"{name}'s gain is greater on the harder set: {noisy[-1]['noise']:.0%} "
                        f"wrong labels against none ({words})",
                        "thought possible",
                        (comparison.listed(growth), together(growth.values())),
                        own=key == "equal_gradients",
                    )
                )
    return found


def tables(record: dict[str, Any]) -> list[Table]:
    """Accuracies, gains and choices at each level."""
    found = []
    for level in record["numbers"]["levels"]:
        inner = {**record, "numbers": level}
        for table in (*comparison.tables(inner), search_table(inner)):
            title = f"{level['noise']:.0%} wrong labels. {table.title}"
            found.append(Table(title, table.header, table.rows))
    return found


def notes(record: dict[str, Any]) -> list[str]:
    """What is wrong about the labels, and how it was done."""
    levels = record["numbers"]["levels"]
    hardest = {**record, "numbers": {**record["numbers"], **levels[-1]}}
    return [
        "**Wrong labels** are drawn evenly from the other classes, for a random share of the "
        "training images, the same for all seeds and optimizers; test labels are right. Choices "
        "are made anew at each share, on held-out images whose labels are as wrong as the others', "
        "for nobody would have better ones. Training accuracy is that on the wrong labels: what is "
        "above the share of right ones has been learnt by heart.",
        HOW,
        *limits(hardest),
    ]


def _growth(noisy: dict[str, Any], clean: dict[str, Any], key: str) -> dict[str, Mean]:
    """How much larger each gain is on wrong labels, by seed."""
    pairs = zip(_by_seed(noisy, key).items(), _by_seed(clean, key).values(), strict=True)
    return {name: paired(of_noisy, of_clean) for (name, of_noisy), of_clean in pairs}


def _by_seed(level: dict[str, Any], key: str) -> dict[str, list[float | None]]:
    """Gains of SAM and ASAM over each base, seed by seed."""
    found = {}
    for base, columns in level[key].items():
        if "+" in base:
            continue
        for name in ("SAM", "ASAM"):
            own = level["equal_epochs"][f"{base} + {name}"]["last"]
            found[f"{name} on {base}"] = subtract(own, columns["last"])
    return found


def _accuracies(ax: Axes, levels: list[dict[str, Any]], base: str) -> None:
    lines = [
        (base, "equal_epochs", base, "-"),
        (f"{base}, twice the epochs", "equal_gradients", base, "--"),
    ]
    lines += [(f"{base} + {n}", "equal_epochs", f"{base} + {n}", "-") for n in ("SAM", "ASAM")]
    for place, (label, key, name, style) in enumerate(lines):
        values = [mean(level[key][name]["last"]) for level in levels]
        ax.errorbar(
            [100 * level["noise"] + 0.4 * (2 * place - 3) for level in levels],
            [value.value for value in values],
            [value.error if value.n > 1 else 0.0 for value in values],
            ls=style,
            marker="o",
            ms=4,
            color=color(name),
            label=label,
        )
    ax.set(ylabel="test accuracy in %")
    ax.legend()


def _gains(ax: Axes, levels: list[dict[str, Any]], base: str, key: str) -> None:
    for place, name in enumerate(("SAM", "ASAM")):
        gains = [comparison.gains(level, key)[f"{name} on {base}"] for level in levels]
        x = [100 * level["noise"] + 0.8 * (2 * place - 1) for level in levels]
        half = [gain.half if gain.n > 1 else 0.0 for gain in gains]
        ax.errorbar(
            x, [g.value for g in gains], half, fmt="D-", ms=5, lw=1.2, color=color(name), label=name
        )
    ax.axhline(0, color=INK, lw=0.9)
    ax.set(title=f"Gain over {base}, {KINDS[key]}", ylabel="points, 95 % interval")
    ax.legend(loc="lower center")  # between the levels
