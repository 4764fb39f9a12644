"""What could have gone wrong in a comparison, said whether it did or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flatmin.compare.arms import ARMS
from flatmin.compare.statistics import mean, subtract

_FEW = 5  # seeds


def troubles(
    arms: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any], seeds: int
) -> list[str]:
    """Sentences about the runs, from what was recorded of them.

    Args:
        arms: The columns of each arm.
        facts: What is known of the task.
        seeds: How many were counted.

    Returns:
        The sentences.
    """
    found = [_active(arms), _schedule(arms), _diverged(arms), _last_or_best(arms, facts)]
    edges = [name for name, arm in arms.items() if arm["at_edge"]]
    if edges:
        found.append(
            f"**At the edge of the search**, also after it was widened: {', '.join(edges)}. A "
            "better setting may lie beyond; move lr in the file, and start again."
        )
    elif any(arm["tried"] for arm in arms.values()):
        found.append("**The search** ended inside what it tried, for every arm.")
    else:
        found.append(
            "**Nothing was searched for**: learning rate and radius are as given, and may suit one "
            "arm better than another."
        )
    if seeds < _FEW:
        found.append(
            f"**With {seeds} seeds** intervals are wide, and rest on the differences being normal."
        )
    if facts["overlap"]:
        found.append(
            "**Each seed has its own split** of the same data, so that seeds depend on each other; "
            "intervals are wider for it (Nadeau and Bengio 2003)."
        )
    else:
        found.append(
            "**What varies** is the start and the batches. The data are the same for all seeds: "
            "the intervals do not say what another test set would give."
        )
    return [sentence for sentence in found if sentence]


def _active(arms: Mapping[str, Mapping[str, Any]]) -> str:
    said = []
    for name, arm in arms.items():
        active = sum(count or 0 for count in arm["active"])
        steps = sum(count or 0 for count in arm["steps"])
        if active:
            said.append(f"{name} in {active:,} of {steps:,} steps")
        elif name in ARMS and ARMS[name].minimizer != "none":  # an arm of one's own is not known
            said.append(f"{name} **in none of {steps:,} steps**: it is the base")
    return f"**Sharpness awareness was active**: {'; '.join(said)}." if said else ""


def _schedule(arms: Mapping[str, Mapping[str, Any]]) -> str:
    ends = {
        name: max(part for part in arm["lr_end"] if part is not None)
        for name, arm in arms.items()
        if any(part is not None for part in arm["lr_end"])
    }
    high = [f"{name} at {part:.0%}" for name, part in ends.items() if part > 0.1]
    if not high:
        return "**The schedule finished**: every run ended with a learning rate near zero."
    return (
        f"**The learning rate did not come down**: the last step of {', '.join(high)} of the "
        "highest. SAM and base may differ less, or more, under a schedule that ends at zero."
    )


def _diverged(arms: Mapping[str, Mapping[str, Any]]) -> str:
    bad = [
        f"{name} (seed {seed}: {reason})"
        for name, arm in arms.items()
        for seed, reason in enumerate(arm["diverged"])
        if reason
    ]
    if not bad:
        return "**No run diverged.**"
    return (
        f"**Diverged**: {'; '.join(bad)}. They are left out of means, and nothing is decided about "
        "an arm that lost one."
    )


def _last_or_best(arms: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """How far the last epoch lies below the best, on the held-out part."""
    choose = max if facts["better"] == "larger" else min
    said = []
    for name, arm in arms.items():
        best = [choose(h for h in held if h is not None) if held else None for held in arm["held"]]
        gap = mean(subtract(best, arm["last"]))
        if gap.n and abs(gap.value) > 0:
            said.append(f"{name} {abs(gap.value):.2f}")
    if not any(any(arm["held"]) for arm in arms.values()):
        return ""
    if not said:
        return "**Last and best epoch** are the same on the held-out part, for every arm."
    return (
        f"**Last against best epoch** on the held-out part, mean over seeds: {', '.join(said)} "
        "worse. The last one is compared; the best would be chosen for luck too."
    )
