"""How the items on images judge, and what they say about their limits."""

from __future__ import annotations

from typing import Any

from flatmin.compare.search import at_edge, least_radius
from flatmin.compare.verdict import RULE
from flatmin.record.item import Verdict

HOW = (
    "**Controlled** means: SGD and Adam alone, with SAM and with ASAM (as published, eta 0.01), "
    "from the same starts and on the same batches, all with a cosine of their own; last epoch. "
    "Adam has decoupled weight decay (AdamW), which at 0 is plain Adam. Learning rate and weight "
    "decay of each base, then the radius on top of them, are chosen by accuracy on a held-out part "
    "of the training set, with a start that is not counted. " + RULE
)


Found = tuple[str, bool | None]


def judged(
    record: dict[str, Any],
    claim: str,
    reported: str,
    found: Found,
    controlled: Found | None = None,
    *,
    own: bool = False,
) -> Verdict:
    """A verdict on a claim about CIFAR; digits can say nothing about it.

    Args:
        record: Whose claim it is.
        claim: What is judged.
        reported: What the report says.
        found: What was measured, as the report measured where it did, and whether it holds.
        controlled: The same under control, where the report's way leaves something open.
        own: Whether it is a question of ours.

    Returns:
        The verdict.
    """

    def of(words: str, holds: bool | None) -> Found:
        if record["numbers"]["source"].startswith("digits"):
            return f"on digits, which say nothing of CIFAR: {words}", None
        return words + (": undecided" if holds is None else ""), holds

    return Verdict(claim, reported, *of(*found), of(*controlled) if controlled else None, own)


def limits(
    record: dict[str, Any],
    reported: str = "wrn-28-10 with 36,479,194, trained for 50 epochs on all 50,000 images",
) -> list[str]:
    """What was smaller than ``reported``, what went wrong, and how far to trust the search."""
    numbers, config = record["numbers"], record["config"]
    alike = "" if config.get("augment", True) else ", neither cropped nor mirrored"
    said = [
        f"**Measured on** {numbers['source']}{alike}; tested on {numbers['test_source']}. "
        f"The network is {config['model']} with {numbers['parameters']:,} parameters, trained for "
        f"{config['epochs']} epochs; the report's is {reported}. Runs were made at commit "
        f"{', '.join(numbers['commits'])}."
    ]
    if config["seeds"] < 3:
        said.append(
            f"**With {config['seeds']} seeds** an interval is wide: 12.7 standard errors for two. "
            "Nothing here is to be quoted."
        )
    edges = [name for name, kept in numbers["chosen"].items() if at_edge(name, kept, numbers)]
    if edges:
        said.append(
            f"**At the edge of the search** lie choices for {', '.join(edges)}: a wider one might "
            "find better."
        )
    least = [name for name, kept in numbers["chosen"].items() if least_radius(name, kept, numbers)]
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
