"""Sharpness along training, in a loop of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flatmin._given import check_network
from flatmin.analysis.along_figure import along_figure
from flatmin.analysis.gauge import Gauge, Own
from flatmin.analysis.look import INVARIANT
from flatmin.analysis.measuring import Effort
from flatmin.analysis.own_batches import own_batches
from flatmin.analysis.own_targets import Loss
from flatmin.ball import Ball
from flatmin.objective._checks import check_model
from flatmin.record.style import house_style
from flatmin.train.named import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class AlongTraining:
    """Measures a network every so many steps, on a fixed batch, while it is trained.

    A copy is measured, in eval mode, and the random state is put back: the training is the same to
    the bit as without. By default the measure is critical sharpness, a gradient and about six
    forward passes.

    Args:
        model: The network that is trained: the plain one, also where it is wrapped for
            ``torch.compile`` or DDP. Under DDP one process measures.
        loss: Mean loss of a batch, from outputs and targets. None takes what the targets mean:
            cross-entropy for integers, the mean squared error for floating point. It must not
            reach the network itself, as a penalty does.
        batch: Inputs and targets, the same at each measuring.
        every: Steps between two measurings.
        measure: A name out of ``flatmin.analysis.MEASURES``, or a function of an objective and a
            point that returns what measures do.
        ball: The neighbourhood; of derivatives, its scale and order.
        steps: Trial points of a climb.
        samples: Random points of an average, random vectors of a trace.
        seed: Of all random choices: each measuring makes the same ones.
        dtype: The floating type to measure in.
        writer: A ``SummaryWriter`` of TensorBoard, or anything with its ``add_scalar``.

    Attributes:
        steps_done: How often ``step`` was called.
        history: One dictionary a measuring: ``step``, the measure by its name, its standard error
            if it has one, ``loss`` on the batch; None for what is not finite.

    Raises:
        TypeError: If network or batch are something else.
        ValueError: If they do not fit together, the loss is computed from the network itself, or
            there is no such measure.

    Example:
        The loss is w². With ``T = |w|`` a step along the gradient leads to as high a loss again
        after η = 1 / w², and 2/η = 2 w² falls with w.

        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 2.0)
        >>> batch = torch.ones(1, 1), torch.zeros(1, 1)
        >>> along = AlongTraining(model, nn.functional.mse_loss, batch, every=2)
        >>> for _ in range(4):
        ...     _ = model.weight.data.mul_(0.5)
        ...     along.step()
        >>> [(row["step"], row["loss"], round(row["critical"], 1)) for row in along.history]
        [(2, 0.25, 0.5), (4, 0.015625, 0.0)]
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss | None,
        batch: Any,
        *,
        every: int = 100,
        measure: str | Own = "critical",
        ball: Ball = INVARIANT,
        steps: int = 10,
        samples: int = 10,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        writer: Any = None,
    ) -> None:
        check_network(model)
        self._model = _plain(model)
        check_model(self._model)
        if every < 1:
            raise ValueError(f"every must be at least 1 step, got {every}.")
        self.every, self.steps_done = every, 0
        self.history: list[dict[str, Any]] = []
        effort = Effort(steps=steps, samples=samples, seed=seed)
        self._gauge = Gauge(
            batch=_one(batch), loss=loss, measure=measure, ball=ball, effort=effort, dtype=dtype
        )
        self._writer = writer
        self._look()  # whether network, batch and measure fit together is known now

    def step(self) -> None:
        """Count a step of the optimizer, and measure where one is due; call it after the step."""
        self.steps_done += 1
        if self.steps_done % self.every:
            return
        found = self._look()
        self.history.append({"step": self.steps_done, **found})
        if self._writer is not None:
            for name, value in found.items():
                if value is not None:
                    self._writer.add_scalar(f"along/{name}", value, self.steps_done)

    def plot(self) -> Figure:
        """Draw the measure and the loss over the steps, with a band of one standard error.

        Returns:
            A figure of matplotlib.

        Raises:
            ValueError: If nothing was measured yet.
        """
        with house_style():
            return along_figure(self._gauge.about, self.history)

    def state_dict(self) -> dict[str, Any]:
        """Steps and history, for a checkpoint."""
        return {"steps_done": self.steps_done, "history": [dict(row) for row in self.history]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.steps_done = state["steps_done"]
        self.history = [dict(row) for row in state["history"]]

    def _look(self) -> dict[str, float | None]:
        devices = {t.device.index for t in self._model.parameters() if t.device.type == "cuda"}
        with torch.random.fork_rng(devices=sorted(devices)):
            return self._gauge(self._model)


def _plain(model: nn.Module) -> nn.Module:
    """The network inside of what compiles or distributes it."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _one(batch: Any) -> Any:
    """A batch, and nothing else."""
    try:
        (one,) = own_batches([batch], 2**62, 2**62)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"batch must be a pair of inputs and a tensor of targets, got {type(batch).__name__} "
            f"({one_line(error)})."
        ) from error
    return one
