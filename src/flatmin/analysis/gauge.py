"""One measure of a network that changes, on a fixed batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from flatmin._streams import stream
from flatmin.analysis.along_figure import along_figure
from flatmin.analysis.measuring import MEASURES, Effort, measure, scale_name
from flatmin.analysis.own_targets import Loss
from flatmin.analysis.subject import fit, made_in
from flatmin.analysis.twin import require_followed, twin_of
from flatmin.ball import Ball
from flatmin.data import DataSet, as_data_set
from flatmin.objective import EmpiricalLoss
from flatmin.objective._batches import Examples
from flatmin.record.files import write_atomically
from flatmin.record.pictures import png
from flatmin.record.style import house_style
from flatmin.scale import Elementwise
from flatmin.sharpness import Estimate, Measurement
from flatmin.train import TrainConfig, read_log
from flatmin.train.parts import hold_out

Own = Callable[[EmpiricalLoss, dict[str, Tensor]], Measurement]
"""A measure of one's own: an objective and a point to what measures return."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """Measures a copy of any state of a network in the same way.

    Attributes:
        batch: Inputs and targets.
        loss: Mean loss of a batch; None for the one that the targets mean.
        measure: A name out of ``MEASURES``, or a measure of one's own.
        ball: The neighbourhood; of derivatives, its scale and order.
        effort: How thoroughly, with the same random numbers each time.
        dtype: The floating type to measure in.
    """

    batch: Examples
    loss: Loss | None = None
    measure: str | Own = "critical"
    ball: Ball = field(default_factory=lambda: Ball(0.5, scale=Elementwise()))
    effort: Effort = field(default_factory=Effort)
    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        if isinstance(self.measure, str) and self.measure not in MEASURES:
            raise ValueError(
                f"there is no measure {self.measure!r}; the measures are {', '.join(MEASURES)}."
            )

    @property
    def name(self) -> str:
        """What the measure is called."""
        if isinstance(self.measure, str):
            return self.measure
        return getattr(self.measure, "__name__", type(self.measure).__name__)

    @property
    def about(self) -> dict[str, Any]:
        """What is measured, as plain values."""
        return {
            "measure": self.name,
            "text": MEASURES.get(self.name, ""),
            "scale": scale_name(self.ball.scale),
            "examples": len(self.batch[1]),
        }

    def __call__(self, model: nn.Module) -> dict[str, float | None]:
        """Measure a copy of the network, in eval mode.

        Args:
            model: The network; as it is left.

        Returns:
            The measure by its name, its standard error if it has one, and the loss; None for what
            is not finite.

        Raises:
            ValueError: If the network does not take the batch or cannot be copied, or the loss is
                computed from the network itself.
        """
        place = next((t.device for t in model.parameters()), torch.device("cpu"))
        subject = fit(twin_of(model), [self.batch], place, self.dtype, self.loss)
        with made_in(self.dtype):
            objective = subject.objective()
            require_followed(objective, model)
            loss = objective.value(objective.params).item()
            found: dict[str, float | None] = {self.name: None, "loss": _finite(loss)}
            if not math.isfinite(loss):  # the training tells, and may yet recover
                return found
            if isinstance(self.measure, str):
                measured = measure(self.measure, objective, self.ball, self.effort)
            else:
                measured = self.measure(objective, objective.params)
        found[self.name] = _finite(measured.value)
        if isinstance(measured, Estimate):
            found[f"{self.name}_error"] = _finite(measured.standard_error)
        return found


def batch_of(data: DataSet | Dataset[Any], config: TrainConfig, examples: int = 256) -> Examples:
    """The examples of a training set that are measured along a run: the same for the same seed.

    Args:
        data: The training set; what is held out of it is not measured on.
        config: That of the run.
        examples: How many, at most.

    Returns:
        A batch, without augmentation.
    """
    part, _ = hold_out(as_data_set(data), config.validation)
    order = torch.randperm(len(part), generator=stream("examples", config.seed))[:examples]
    chosen = part.subset(order)
    batch = chosen.batch(torch.arange(len(order)), None, dtype=torch.float32)
    return cast(Examples, batch)


def draw_run(gauge: Gauge, out: Path) -> None:
    """Write ``along.png`` from the log of a run, from its first step on, also of a resumed one.

    Args:
        gauge: What was measured.
        out: The folder of the run.
    """
    rows = [row for row in read_log(out / "log.jsonl") if gauge.name in row]
    if rows:  # else the run was shorter than the steps between two measurings
        with house_style():
            write_atomically(out / "along.png", png(along_figure(gauge.about, rows)))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
