"""Whether the claims of appendix A hold, and what the grid of networks answers, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flatmin.experiments.toy._beside import NAMES, NEAR
from flatmin.experiments.toy._flatness import (
    AVERAGE,
    BOX,
    IDENTITY,
    INVARIANT,
    MEASURES,
    NORM,
    PUBLISHED,
    SCALES,
    TOP,
    TRACE,
    WORST,
)
from flatmin.experiments.toy._ranking import COPIES, EQUAL, SAME
from flatmin.experiments.toy._scored import ERROR, GAP, LOSS, TRAIN
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
    """All positive: it holds; none positive and one negative: it does not; else undecided."""
    if min(signs) < 0:
        return None if max(signs) > 0 else False
    return True if min(signs) > 0 else None


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
                (f"τ with the {target}, {EQUAL}", tau[EQUAL][target][f"{WORST} | {IDENTITY}"])
                for target in (GAP, LOSS)
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


def answered(numbers: dict[str, Any]) -> str:
    """Whether SAM and ASAM lie flatter, and whether the flatter generalize."""
    ways = {way: row for way, row in numbers["ways"].items() if "flatter" in row}
    curved = [f"{m} | {s}" for m in (WORST, BOX, AVERAGE, TRACE, TOP) for s in SCALES]
    slopes = [f"{NORM} | {s}" for s in SCALES]
    least = min(row["flatter"][n]["share"][0] for row in ways.values() for n in curved)
    equal = {way: row["matched"] for way, row in ways.items()}
    usual = [way for way in ways if equal[way] > 0.25]
    among = [ways[way]["flatter"][n]["matched"][0] for way in usual for n in curved]
    weak = {way for way in ways if way.endswith(min(w.split()[1] for w in ways))}
    slope = [ways[way]["flatter"][n]["share"][0] for way in weak for n in slopes]
    tau, name = numbers["tau"], f"{WORST} | {INVARIANT}"
    flattest = max(ways, key=lambda way: ways[way]["differences"][LOSS][0])
    worse = ways[flattest]["differences"]
    return (
        "**Do SAM and ASAM lie flatter?** Yes, by every measure that looks at the worst case, at "
        "an average or at curvature, in every geometry: beside Adam's network that is alike in all "
        f"else, in at least {_percent(least)} of pairs; and beside Adam's network of the same "
        f"training loss in at least {_percent(min(among, default=0.0))} ({', '.join(usual)}; of "
        "the others hardly any network finds its equal). Not by the gradient norm: at the "
        f"smaller radius they are the flatter ones in {_percent(min(slope))} to "
        f"{_percent(max(slope))} of pairs only, for they stop where the gradient is larger. **Do "
        f"flatter ones generalize?** Not here. {WORST.capitalize()} sharpness, {INVARIANT}, has "
        f"Kendall's τ = {interval(tau[SAME][LOSS][name])} with the test loss and "
        f"{interval(tau[SAME][ERROR][name])} with the test error: the flatter, the *worse*, since "
        f"the flattest networks have learnt least. With the gap it has "
        f"{interval(tau[SAME][GAP][name])}, but the training loss alone has "
        f"{interval(tau[SAME][GAP][TRAIN])}. Among pairs on the same points whose training losses "
        f"are within {NEAR:g} nats it has {interval(tau[EQUAL][LOSS][name])} with the test loss "
        f"and {interval(tau[EQUAL][GAP][name])} with the gap. {flattest}, the flattest, ends "
        f"{worse[LOSS][0]:+.2f} ± {worse[LOSS][1]:.2f} nats from Adam's test loss."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


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
        "On rescaled copies, which compute the same, every invariant measure keeps its τ (to "
        "0.001); those of the other geometries do not (by more than 0.05)",
        "",
        f"largest change of a τ over {len(MEASURES)} measures and three targets: {words}",
        found[INVARIANT] <= 0.001 < 0.05 < min(found[IDENTITY], found[PUBLISHED]),
        own=True,
    )
