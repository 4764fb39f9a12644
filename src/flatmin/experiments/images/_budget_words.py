"""What ext_budget says: the gains at each length, whether they hold, and in which words."""

from __future__ import annotations

from typing import Any

from flatmin.compare.statistics import Mean, paired, signed, subtract
from flatmin.compare.verdict import compared, decided, together
from flatmin.experiments.images._words import judged
from flatmin.record.item import Verdict

AWARE = ("SAM", "ASAM")
BASES = {"SGD": "equal epochs", "SGD × 2": "equal gradients"}


def gains(level: dict[str, Any], name: str, base: str) -> list[Mean]:
    """What an arm gains over a base at each length, paired by seed."""
    return [
        paired(length["arms"][name]["last"], length["arms"][base]["last"])
        for length in level["lengths"]
    ]


def answer(record: dict[str, Any]) -> str:
    """What is gained with the fewest epochs and with the most."""
    said = []
    for level in record["numbers"]["levels"]:
        lengths = level["lengths"]
        clauses = [
            compared(name, "SGD", gains(level, name, "SGD × 2")[place])
            + f" with {_count(lengths[place]['epochs'])}"
            for name in AWARE
            for place in dict.fromkeys((0, len(lengths) - 1))
        ]
        said.append(f"{_labels(level)} {'; '.join(clauses)}.")
    holds = together([gain for name in AWARE for gain in _limited(record, name, "SGD × 2")])
    yes = "With fewer epochs sharpness awareness is ahead at every length"
    no = "With fewer epochs sharpness awareness is not ahead at every length"
    return f"{decided(holds, yes, no)}, at this size and at equal gradients. {' '.join(said)}"


def check(record: dict[str, Any]) -> list[Verdict]:
    """The report's sentence; whether it is the shortness that does it; and the control."""
    levels = record["numbers"]["levels"]
    found = []
    for name in AWARE:
        same, fair = (_limited(record, name, base) for base in BASES)
        found.append(
            judged(
                record,
                f"When the number of epochs is limited, {name} is significantly better than its "
                "base (as reported: as many epochs; under control: as many gradients)",
                "of SAM and ASAM around SGD against Adam, 50 epochs, a large model",
                (_listed(record, same), together(same)),
                (_listed(record, fair), together(fair)),
            )
        )
    for level in levels:
        for name in AWARE:
            growth = _shortest_less_longest(level, name)
            found.append(
                judged(
                    record,
                    f"{_labels(level)} {name}'s gain at equal gradients is greater with the "
                    "fewest epochs than with the most",
                    "implied",
                    (signed(growth), together([growth])),
                    own=True,
                )
            )
    for level in levels:
        if level["noise"]:
            last = {name: gains(level, name, "SGD")[-1] for name in AWARE}
            found.append(
                judged(
                    record,
                    f"The control: {_labels(level).lower()} SAM and ASAM are ahead of SGD with "
                    "the most epochs, as they are known to be",
                    "SAM's robustness to label noise is cited",
                    (
                        "; ".join(f"{name} {signed(gain)}" for name, gain in last.items()),
                        together(last.values()),
                    ),
                    own=True,
                )
            )
    return found


def _limited(record: dict[str, Any], name: str, base: str) -> list[Mean]:
    """Gains at all lengths but the whole one, on right labels where there are any."""
    found = gains(record["numbers"]["levels"][0], name, base)
    return found[:-1] or found


def _listed(record: dict[str, Any], found: list[Mean]) -> str:
    lengths = record["numbers"]["levels"][0]["lengths"]
    pairs = zip(lengths, found, strict=False)
    return "; ".join(f"{_count(length['epochs'])} {signed(gain)}" for length, gain in pairs)


def _shortest_less_longest(level: dict[str, Any], name: str) -> Mean:
    first, last = (
        subtract(length["arms"][name]["last"], length["arms"]["SGD × 2"]["last"])
        for length in (level["lengths"][0], level["lengths"][-1])
    )
    return paired(first, last)


def _count(epochs: int) -> str:
    return f"{epochs} epoch{'s' * (epochs != 1)}"


def _labels(level: dict[str, Any]) -> str:
    return (
        f"With {level['noise']:.0%} of the labels wrong," if level["noise"] else "On right labels"
    )
