"""Whether the claims of appendix A hold, and what the grid of networks answers, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flatmin.experiments.toy._beside import NAMES
from flatmin.experiments.toy._flatness import (
    IDENTITY,
    INVARIANT,
    MEASURES,
    PUBLISHED,
    SCALES,
    WORST,
)
from flatmin.experiments.toy._ranking import COPIES, GIVEN, SAME
from flatmin.experiments.toy._scored import GAP, LOSS
from flatmin.record.item import Verdict

Estimate = Sequence[float | None]


def interval(estimate: Estimate) -> str:
    """A τ with its half-width."""
    value, half = estimate
    if value is None:
        return "–"
    return f"{value:+.2f}" + ("" if half is None else f" ± {half:.2f}")


def sign(estimate: Estimate, zero: float = 0.0) -> int:
    """1 or −1 where the interval excludes ``zero``, else 0."""
    value, half = estimate
    if value is None or half is None or abs(value - zero) <= half:
        return 0
    return 1 if value > zero else -1


def holds(signs: Sequence[int]) -> bool | None:
    """All positive: it holds; one negative: it does not; else undecided."""
    return False if min(signs) < 0 else True if min(signs) > 0 else None


def judged(numbers: dict[str, Any]) -> list[Verdict]:
    """The report's claims, and the questions that it leaves open."""
    tau = numbers["tau"]
    return [
        *(_flatter(numbers, kind) for kind in ("SAM", "ASAM")),
        _related(
            "“Sharper minima of the training loss function yield higher test loss values” "
            "(sharpness as the report defines it: T = 1, p = 2)",
            "appendix A",
            [(f"τ with the {LOSS}", tau[SAME][LOSS][f"{WORST} | {IDENTITY}"])],
        ),
        _related(
            "“A small shift between the training loss landscape and the expected loss […] yields a "
            "higher increase of the loss value when the minimum is sharp, even if the loss value "
            "in both minima is equal”",
            "appendix A",
            [
                (
                    f"τ with the {GAP} given the training loss",
                    tau[GIVEN][GAP][f"{WORST} | {IDENTITY}"],
                )
            ],
        ),
        _related(
            "ASAM “infers the generalization ability from a sharpness related measure”: adaptive "
            "sharpness as published goes with test loss",
            "conclusion",
            [(f"τ with the {LOSS}", tau[SAME][LOSS][f"{WORST} | {PUBLISHED}"])],
        ),
        _related(
            "Invariant sharpness (T = |w|, biases included) goes with test loss",
            "",
            [(f"τ with the {LOSS}", tau[SAME][LOSS][f"{WORST} | {INVARIANT}"])],
        ),
        _copies(numbers),
    ]


def _flatter(numbers: dict[str, Any], kind: str) -> Verdict:
    own = IDENTITY if kind == "SAM" else PUBLISHED
    shares = {
        way: row["flatter"][f"{WORST} | {own}"]["share"]
        for way, row in numbers["ways"].items()
        if way.split()[0] == kind
    }
    words = ", ".join(f"{way}: {100 * v:.0f} ± {100 * h:.0f} %" for way, (v, h) in shares.items())
    return Verdict(
        f"{kind} finds flatter minima than Adam, by the sharpness that it minimizes "
        f"({own}, p = 2, worst case)",
        "appendix A: it helps “to find a minimum which lies in a neighborhood that smoothly goes "
        "toward this minimum”",
        f"share of pairs, alike in all else, in which it lies flatter: {words}",
        holds([sign(share, 0.5) for share in shares.values()]),
    )


def _related(claim: str, said: str, estimates: Sequence[tuple[str, Estimate]]) -> Verdict:
    words = "; ".join(f"Kendall's {what}: {interval(tau)}" for what, tau in estimates)
    return Verdict(claim, said, words, holds([sign(tau) for _, tau in estimates]), own=not said)


def _copies(numbers: dict[str, Any]) -> Verdict:
    tau = numbers["tau"]

    def moved(scale: str) -> float:
        names = [n for n in NAMES if n.endswith(f"| {scale}")]
        pairs = [(tau[COPIES][t][n][0], tau[SAME][t][n][0]) for t in tau[SAME] for n in names]
        return max(abs(float(after) - float(before)) for after, before in pairs)

    found = {scale: moved(scale) for scale in SCALES}
    words = ", ".join(f"{scale} {value:.3f}" for scale, value in found.items())
    return Verdict(
        "On rescaled copies, which compute the same, every invariant measure keeps its τ; those of "
        "the other geometries change",
        "",
        f"largest change of a τ over {len(MEASURES)} measures and three targets: {words}",
        found[INVARIANT] <= 0.001 < 0.05 < min(found[IDENTITY], found[PUBLISHED]),
        own=True,
    )
