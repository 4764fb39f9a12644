"""The loss on the straight line between two networks, and its barrier."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.analysis.matching import balanced, matched
from flatmin.analysis.subject import Subject, digest, made_in
from flatmin.record.progress import progress


def line_between(first: Subject, second: Subject, *, points: int = 25) -> dict[str, Any]:
    r"""Losses on the line between two networks, as they are and brought near each other.

    .. math:: \max_{0 \le t \le 1} L((1 - t) w + t v) - (1 - t) L(w) - t L(v)

    is the barrier. It depends on which of the networks with the same two functions are joined: so
    the line is drawn between the two as they are, between their balanced rescalings
    (``canonicalize``), and between those with the units of the second in the order that lies
    nearest to the first. Running statistics of a normalization are joined like weights.

    Args:
        first: A network with data.
        second: Another with the same data and parameters of the same shapes.
        points: Where the loss is evaluated, both ends included.

    Returns:
        Plain values: ``t``, a list ``lines`` of names, losses, barriers and reasons.

    Raises:
        ValueError: If data or shapes differ, or there are fewer than three points.

    Source:
        Frankle et al. 2020, arXiv:1912.05671, section 2, with the mean of the ends replaced by the
        straight line between them; Entezari et al. 2022, arXiv:2110.06296, definition 2.
    """
    _require_alike(first, second, points)
    inputs = first.batches[0][0]
    example = inputs if isinstance(inputs, Tensor | dict) else tuple(inputs)
    ts = [k / (points - 1) for k in range(points)]
    with made_in(first.dtype):
        one, why_one = balanced(first.model, example)
        other, why_other = balanced(second.model, example)
        near, why_near = matched(other, one, example)
        pairs = (
            ("as they are", first.model, second.model, None),
            ("after canonicalize", one, other, why_one or why_other),
            ("and the units matched", one, near, why_near),
        )
        lines = []
        for name, start, end, reason in progress(pairs, "line", lambda pair: pair[0]):
            losses = _along(first, start, end, ts)
            lines.append(
                {
                    "name": name,
                    "losses": [x if math.isfinite(x) else None for x in losses],
                    "barrier": barrier(ts, losses),
                    "reason": reason,
                }
            )
    return {"t": ts, "lines": lines}


def barrier(ts: Sequence[float], losses: Sequence[float]) -> float | None:
    """The largest rise of the loss above the straight line between its ends.

    Args:
        ts: Places from 0 to 1.
        losses: The losses there.

    Returns:
        The barrier, at least 0, in units of the loss; None where a loss is not finite.

    Example:
        >>> barrier([0.0, 0.5, 1.0], [1.0, 4.0, 3.0])
        2.0
    """
    if not all(map(math.isfinite, losses)):
        return None
    start, end = losses[0], losses[-1]
    return max(x - (1 - t) * start - t * end for t, x in zip(ts, losses, strict=True))


def _along(subject: Subject, start: nn.Module, end: nn.Module, ts: Sequence[float]) -> list[float]:
    middle = copy.deepcopy(start)
    objective = subject.objective(middle)
    found = []
    for t in ts:
        _join(middle, start, end, t)
        found.append(objective.value(objective.params).item())
    return found


def _join(middle: nn.Module, start: nn.Module, end: nn.Module, t: float) -> None:
    """Put a network at ``(1 − t) start + t end``; counters stay those of the start."""
    groups = (
        [*module.named_parameters(), *module.named_buffers()] for module in (middle, start, end)
    )
    with torch.no_grad():
        for (_, here), (_, a), (_, b) in zip(*groups, strict=True):
            if here.is_floating_point() or here.is_complex():
                here.copy_(a if t == 0 else b if t == 1 else (1 - t) * a + t * b)


def _require_alike(first: Subject, second: Subject, points: int) -> None:
    if points < 3:
        raise ValueError(f"points must be at least 3, got {points}.")
    shapes = [
        {name: list(t.shape) for name, t in subject.model.state_dict().items()}
        for subject in (first, second)
    ]
    if shapes[0] != shapes[1]:
        differing = sorted(
            name
            for name in {**shapes[0], **shapes[1]}
            if shapes[0].get(name) != shapes[1].get(name)
        )
        raise ValueError(
            "a line joins networks with the same parameters, and these two differ in "
            f"{', '.join(differing[:3])}."
        )
    if digest(first.batches) != digest(second.batches):
        raise ValueError("a line joins networks that were looked at on the same data.")
