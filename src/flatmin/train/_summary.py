"""How a run ended, in a line; and a sentence where a number of it is no measure of the network."""

from __future__ import annotations

import math
from pathlib import Path

from flatmin.train.history import Epoch


def summary(last: Epoch, checkpoint: Path | None) -> str:
    """The last epoch by its accuracy, or else its metric or loss, on each part of the data."""
    kind = next(kind for kind in ("accuracy", "metric", "loss") if "test" in _by_part(last, kind))
    form = ".2%" if kind == "accuracy" else ".6g"
    shown = ", ".join(f"{name} {value:{form}}" for name, value in _by_part(last, kind).items())
    where = f"; {checkpoint}" if checkpoint else ""
    return f"epoch {last.epoch}: {kind} {shown} ({last.gradients} gradients){where}"


def doubts(last: Epoch) -> list[str]:
    """A sentence for each part of the data on which the loss is not finite."""
    return [
        f"the {name} loss is {loss}: some examples there have no finite output, and count as wrong "
        "in an accuracy; look for missing values among them."
        for name, loss in _by_part(last, "loss").items()
        if not math.isfinite(loss)
    ]


def _by_part(last: Epoch, kind: str) -> dict[str, float]:
    parts = {"training": "train", "validation": "validation", "test": "test"}
    found = {name: getattr(last, f"{part}_{kind}") for name, part in parts.items()}
    return {name: value for name, value in found.items() if value is not None}
