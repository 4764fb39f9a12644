"""How the items on images judge, and what they say about their limits."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from flatmin.experiments._harness import Table, Verdict
from flatmin.experiments._paired import Mean, signed

HOW = (
    "**Controlled** means: SGD and Adam alone, with SAM and with ASAM (as published, eta 0.01), "
    "from the same starts and on the same batches, all with a cosine of their own; last epoch. "
    "Adam has decoupled weight decay (AdamW), which at 0 is plain Adam. Learning rate and weight "
    "decay of each base, then the radius on top of them, are chosen by accuracy on a held-out part "
    "of the training set, with a start that is not counted. A verdict of *no gain* or *no "
    "difference* needs an interval that ends within half a point."
)


_WORTH = 0.5  # points of accuracy


def judged(
    record: dict[str, Any], claim: str, reported: str, measured: str, holds: bool | None
) -> Verdict:
    """A verdict on a claim about CIFAR; digits can say nothing about it."""
    if record["numbers"]["source"].startswith("digits"):
        return Verdict(claim, reported, f"on digits, which say nothing of CIFAR: {measured}", None)
    if holds is None:
        measured += ": undecided"
    return Verdict(claim, reported, measured, holds)


def together(differences: Iterable[Mean]) -> bool | None:
    """Whether all are positive: no, if one is negative beyond its interval; else undecided."""
    signs = [difference.sign for difference in differences]
    return False if min(signs) < 0 else True if min(signs) > 0 else None


def no_gain(differences: Collection[Mean]) -> bool | None:
    """Whether none is a gain worth its name: every interval ends below half a point."""
    ends = [difference.value + difference.half for difference in differences]
    lows = [difference.value - difference.half for difference in differences]
    return True if max(ends) <= _WORTH else False if max(lows) > 0.0 else None


def alike(difference: Mean) -> bool | None:
    """Whether there is no difference worth its name: the interval stays within half a point."""
    if abs(difference.value) + difference.half <= _WORTH:
        return True
    return False if difference.sign else None


def compared(one: str, other: str, difference: Mean) -> str:
    """Which of two is better, as a clause, with the paired difference and its 95 % interval."""
    if difference.n < 2:
        return f"{one} − {other}: {signed(difference)}"
    low, high = difference.value - difference.half, difference.value + difference.half
    points = f"({difference.value:+.1f} points, {low:+.1f} to {high:+.1f})"
    if not difference.sign:
        return f"{one} and {other} cannot be told apart {points}"
    return f"{one} is {'ahead of' if difference.sign > 0 else 'behind'} {other} {points}"


def decided(holds: bool | None, yes: str, no: str) -> str:
    """The answer to a question, or that there is none yet."""
    return "These runs do not decide it" if holds is None else yes if holds else no


def limits(
    record: dict[str, Any],
    reported: str = "wrn-28-10 with 36,479,194, trained for 50 epochs on all 50,000 images",
) -> list[str]:
    """What was smaller than ``reported``, what went wrong, and how far to trust the search."""
    numbers, config = record["numbers"], record["config"]
    said = [
        f"**Measured on** {numbers['source']}; tested on {numbers['test_source']}. The network is "
        f"{config['model']} with {numbers['parameters']:,} parameters, trained for "
        f"{config['epochs']} epochs; the report's is {reported}. Runs were made at commit "
        f"{', '.join(numbers['commits'])}."
    ]
    if config["seeds"] < 3:
        said.append(
            f"**With {config['seeds']} seeds** an interval is wide: 12.7 standard errors for two. "
            "Nothing here is to be quoted."
        )
    edges = [name for name, kept in numbers["chosen"].items() if _at_edge(name, kept, numbers)]
    if edges:
        said.append(
            f"**At the edge of the search** lie choices for {', '.join(edges)}: a wider one might "
            "find better."
        )
    least = [name for name, kept in numbers["chosen"].items() if _least_radius(name, kept, numbers)]
    if least:
        said.append(
            f"**The smallest radius** of the search was the best for {', '.join(least)}: smaller "
            "ones may be better still, and at zero lies the base itself."
        )
    bad = [
        f"{name} (seed {seed}: {reason})"
        for key in ("reported", "equal_epochs", "equal_gradients")
        for name, columns in numbers.get(key, {}).items()
        for seed, reason in enumerate(columns["diverged"])
        if reason
    ]
    if bad:
        said.append(f"**Diverged**, and left out of means and pairs: {'; '.join(bad)}.")
    return said


def search_table(record: dict[str, Any]) -> Table:
    """Every run of the search; what was chosen is marked."""
    numbers = record["numbers"]
    rows = []
    for kept in numbers["search"]:
        choice = numbers["chosen"][kept["optimizer"]]
        is_it = all(kept[key] == value for key, value in flat(choice).items())
        rows.append(
            [
                kept["optimizer"],
                kept["lr"],
                kept["decay"],
                kept["rho"],
                kept["accuracy"],
                "←" * is_it,
            ]
        )
    return Table(
        "The search: accuracy in % on the held-out images after "
        f"{record['config']['search_epochs'] or record['config']['epochs']} epochs",
        ("optimizer", "lr", "weight decay", "rho", "validation accuracy", "chosen"),
        rows,
    )


def flat(choice: dict[str, Any]) -> dict[str, Any]:
    """What was searched for, out of what to train with."""
    decay = choice["options"]["weight_decay"]
    return {"lr": choice["lr"], "decay": decay, "rho": choice.get("rho")}


def _at_edge(name: str, choice: dict[str, Any], numbers: dict[str, Any]) -> bool:
    """Whether a choice has no neighbour on one side; below the smallest radius lies the base."""
    for key, value in flat(choice).items():
        values = _tried(name, key, numbers)
        inside = len(values) < 3 or value == 0.0 or values[0] < value < values[-1]
        if not inside and not (key == "rho" and value == values[0]):
            return True
    return False


def _least_radius(name: str, choice: dict[str, Any], numbers: dict[str, Any]) -> bool:
    values = _tried(name, "rho", numbers)
    return len(values) > 1 and flat(choice)["rho"] == values[0]


def _tried(name: str, key: str, numbers: dict[str, Any]) -> list[float]:
    tried = [kept[key] for kept in numbers["search"] if kept["optimizer"] == name]
    return sorted({value for value in tried if value is not None})
