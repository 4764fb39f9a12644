"""One optimizer beside Adam, cell by cell of a grid: scores, and how often it lies flatter."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from flatmin.compare.statistics import mean
from flatmin.experiments.toy._flatness import MEASURES, NORM, SCALES
from flatmin.experiments.toy._grid import AXES, Config
from flatmin.experiments.toy._scored import ERROR, GAP, LOSS, SHARE, SIZE, TRAIN

NAMES = tuple(f"{name} | {scale}" for name in MEASURES for scale in SCALES)
NEAR = 0.01  # nats of training loss that two networks may differ by and count as equally trained

Scores = dict[str, Tensor]


def beside_adam(config: Config, values: Scores) -> dict[str, Any]:
    """What is kept of each optimizer."""
    optimizer = AXES.index("optimizer")
    ways = [{n: t.select(optimizer, k) for n, t in values.items()} for k in range(len(config.ways))]
    return {name: _kept(way, ways[0]) for name, way in zip(config.ways, ways, strict=True)}


def flatter(way: Scores, adam: Scores, name: str, *, alive: bool = False) -> Tensor:
    """Share of cells in which a network lies flatter than Adam's, for each draw; half for equals.

    With ``alive`` only cells count whose networks do not predict one class for everything.
    """
    found = _below(way[name], adam[name])
    if alive:
        found = found.where((way[SHARE] < 1) & (adam[SHARE] < 1), float("nan"))
    return found.flatten(0, -2).nanmean(dim=0)


def matched(way: Scores, adam: Scores, name: str) -> tuple[Tensor, float]:
    """The same beside the equally trained: Adam's network of the draw with the next training loss.

    Returns:
        The share for each draw, and how many networks found an equal within ``NEAR``.
    """
    own, others = (_by_draw(of[TRAIN]) for of in (way, adam))
    apart = (own[..., :, None] - others[..., None, :]).abs()
    nearest = apart.argmin(dim=-1)
    equal = apart.amin(dim=-1) <= NEAR
    living = _by_draw(way[SHARE]) < 1
    found = _below(_by_draw(way[name]), _by_draw(adam[name]).gather(-1, nearest))
    found = found.where(equal & living, float("nan"))
    return found.movedim(1, -1).flatten(0, -2).nanmean(dim=0), (
        (equal & living).double().mean().item()
    )


def _kept(way: Scores, adam: Scores) -> dict[str, Any]:
    found: dict[str, Any] = {
        "one class": (way[SHARE] == 1).double().mean().item(),
        "means": {
            name: _over_draws(way[name].flatten(0, -2).mean(dim=0))
            for name in (TRAIN, LOSS, ERROR, GAP, SIZE, f"{NORM} | {next(iter(SCALES))}")
        },
    }
    if way[TRAIN] is adam[TRAIN] or bool((way[TRAIN] == adam[TRAIN]).all()):
        return found
    return found | {
        "differences": {
            name: _over_draws((way[name] - adam[name]).flatten(0, -2).mean(dim=0))
            for name in (TRAIN, LOSS, ERROR, GAP)
        },
        "matched": matched(way, adam, NAMES[0])[1],
        "flatter": {
            name: {
                "share": _over_draws(flatter(way, adam, name)),
                "alive": _over_draws(flatter(way, adam, name, alive=True)),
                "matched": _over_draws(matched(way, adam, name)[0]),
                "ratio": (way[name] / adam[name]).nanmedian().item(),
            }
            for name in NAMES
        },
    }


def _below(one: Tensor, other: Tensor) -> Tensor:
    """One where the first is smaller, one half where both are equal."""
    return (one < other).double() + 0.5 * (one == other).double()


def _by_draw(values: Tensor) -> Tensor:
    """``[variances, draws, all else]``."""
    return values.movedim((-2, -1), (0, 1)).flatten(2)


def _over_draws(values: Tensor) -> list[float]:
    """Mean over draws and the half-width of its interval."""
    found = mean([None if v != v else v for v in values.tolist()])
    return [float(f"{found.value:.5g}"), float(f"{found.half:.3g}")]
