"""One network looked at, row by row, into a record of plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flatmin.analysis.measuring import MEASURES, Copies, Effort, measured_row, scale_name
from flatmin.analysis.subject import Subject, digest, made_in, mixings_of, scalings_of
from flatmin.ball import Ball
from flatmin.record.progress import progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked about a network.

    Attributes:
        balls: The neighbourhood, and others to compare with.
        measures: Names out of ``MEASURES``.
        effort: How thoroughly.
        scalings: Rescaled copies to measure as well.
    """

    balls: tuple[Ball, ...]
    measures: tuple[str, ...] = tuple(MEASURES)
    effort: Effort
    scalings: int

    def __post_init__(self) -> None:
        for name in self.measures:
            if name not in MEASURES:
                raise ValueError(
                    f"there is no measure {name!r}; the measures are {', '.join(MEASURES)}."
                )
        if not self.measures:
            raise ValueError(f"name at least one measure; there are {', '.join(MEASURES)}.")
        for name, wrong in (("samples", self.effort.samples < 2), ("steps", self.effort.steps < 1)):
            if wrong:
                least = 2 if name == "samples" else 1
                given = getattr(self.effort, name)
                raise ValueError(f"{name} must be at least {least}, got {given}.")
        if self.scalings < 0:
            raise ValueError(f"scalings must be at least 0, got {self.scalings}.")


class Listener:
    """Hears what becomes known, when it does; this one does nothing with it."""

    def begins(self, record: Mapping[str, Any]) -> None:
        """Network, data and loss are known."""

    def row(self, record: Mapping[str, Any], name: str) -> None:
        """A measure is known in all balls."""


def looked(
    subject: Subject,
    plan: Plan,
    *,
    title: str,
    network: Mapping[str, Any],
    data: Mapping[str, Any],
    listener: Listener,
    threads: str | None = None,
) -> dict[str, Any]:
    """Measure a network, and its rescaled copies.

    Args:
        subject: Network and data.
        plan: What is asked.
        title: What the network is called.
        network: Where it comes from.
        data: Where they come from.
        listener: Told at once what is known.
        threads: In how many threads, and why.

    Returns:
        Plain values, as in ``measure.json``.

    Raises:
        ValueError: If nothing can move, or the loss is not finite.
    """
    with made_in(subject.dtype):
        record = _head(subject, plan, title, network, data)
        if threads is not None:
            record["threads"] = threads
        listener.begins(record)
        found, reason = scalings_of(subject) if plan.scalings else (None, "not asked for")
        mixings = mixings_of(subject, found)
        copies = Copies(found, plan.scalings, plan.effort.seed, mixings)
        record["certificate"] = {
            "copies": plan.scalings if copies.any else 0,
            "units": sum(group.size for group in found.groups) if found else 0,
            "reason": reason,
            "mixings": mixings.counted() if mixings else "",
        }
        for name in progress(tuple(dict.fromkeys(plan.measures)), title, str):
            for ball in plan.balls:
                row = measured_row(name, subject, ball, plan.effort, copies)
                record["rows"].append({"scale": scale_name(ball.scale), **row})
            listener.row(record, name)
    return record


def _head(
    subject: Subject, plan: Plan, title: str, network: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any]:
    objective = subject.objective()
    if not objective.params:
        raise ValueError("the network has no parameter with requires_grad, so nothing can move.")
    loss = objective.value(objective.params).item()
    if not math.isfinite(loss):
        raise ValueError(
            f"the loss must be finite, got {loss} on {data['source']}; a diverged network has no "
            "sharpness."
        )
    parameters = sum(t.numel() for t in objective.params.values())
    return {
        "title": title,
        "network": {**network, "parameters": parameters},
        "data": {**data, "digest": digest(subject.batches)},
        "loss": loss,
        "loss_function": getattr(subject.loss, "__name__", ""),
        "balls": [described(ball) for ball in plan.balls],
        "ball": described(plan.balls[0]),
        "certificate": {"copies": 0, "units": 0, "reason": None, "mixings": ""},
        "rows": [],
        "landscape": None,
    }


def described(ball: Ball) -> dict[str, Any]:
    """A ball as plain values."""
    return {"scale": scale_name(ball.scale), "rho": ball.rho, "p": f"{ball.p:g}"}
