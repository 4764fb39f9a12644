"""A measure layer by layer."""

from __future__ import annotations

import copy
import math
from typing import Any

from flatmin.analysis.measuring import Effort, measure
from flatmin.analysis.subject import Subject, made_in
from flatmin.ball import Ball
from flatmin.record.progress import progress
from flatmin.sharpness import Estimate


def layers(subject: Subject, name: str, ball: Ball, effort: Effort) -> list[dict[str, Any]]:
    """Measure one layer at a time, while the others stay where they are.

    The layers' sharpnesses do not add up to the network's: the whole moves in directions in which
    no single layer can.

    Args:
        subject: Network and data.
        name: One of ``MEASURES``.
        ball: The neighbourhood of each layer.
        effort: How thoroughly.

    Returns:
        For each layer, in the order of the network: ``layer``, ``parameters``, ``value``,
        ``standard_error`` and ``warnings``; None where a number is not finite or not random.
    """
    twin = copy.deepcopy(subject.model)
    members: dict[str, list[Any]] = {}
    for path, parameter in twin.named_parameters():
        if parameter.requires_grad:
            # A parameter of the network itself is a layer of its own.
            members.setdefault(path.rpartition(".")[0] or path, []).append(parameter)
    twin.requires_grad_(False)
    found = []
    with made_in(subject.dtype):
        for layer in progress(tuple(members), f"{name} by layer", str):
            for parameter in members[layer]:
                parameter.requires_grad_(True)
            one = measure(name, subject.objective(twin), ball, effort)
            for parameter in members[layer]:
                parameter.requires_grad_(False)
            error = one.standard_error if isinstance(one, Estimate) else None
            found.append(
                {
                    "layer": layer,
                    "parameters": sum(p.numel() for p in members[layer]),
                    "value": one.value if math.isfinite(one.value) else None,
                    "standard_error": error,
                    "warnings": list(one.warnings),
                }
            )
    return found
