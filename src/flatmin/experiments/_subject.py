"""A network and data that have been brought together, ready to be measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin.objective import EmpiricalLoss
from flatmin.objective._batches import Examples, apply, arguments
from flatmin.symmetry import Scalings, find_scalings


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is measured: a network in the mode, precision and place to measure in, and data.

    Attributes:
        model: The network.
        loss: Mean loss of a batch, from outputs and targets.
        batches: The data.
    """

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    batches: list[Examples]

    def objective(self, model: nn.Module | None = None) -> EmpiricalLoss:
        """The loss of the network, or of a copy of it."""
        return EmpiricalLoss(self.model if model is None else model, self.loss, self.batches)


def fit(
    model: nn.Module, batches: list[Examples], device: torch.device, dtype: torch.dtype
) -> Subject:
    """Bring network and data together, in eval mode, and try them.

    Args:
        model: The network; moved.
        batches: Inputs, and targets: integers for cross-entropy, others for squared errors.
        device: Where to measure.
        dtype: In which floating type.

    Returns:
        What can be measured.

    Raises:
        ValueError: If the network does not take the data, or their targets.
    """
    # Batch normalization would mix examples, and dropout is another function at each call.
    model.to(device, dtype).eval()

    def moved(t: Tensor) -> Tensor:
        return t.to(device, dtype if t.is_floating_point() else None)

    placed = [(apply(moved, inputs), moved(targets)) for inputs, targets in batches]
    inputs, targets = placed[0]
    classes = not targets.is_floating_point()
    loss = F.cross_entropy if classes else F.mse_loss
    args, kwargs = arguments(inputs)
    shapes = ", ".join(str(list(t.shape)) for t in [*args, *kwargs.values()])
    try:
        with torch.no_grad():
            outputs = model(*args, **kwargs)
    except Exception as error:  # a stranger's network can fail in any way
        raise ValueError(
            f"the network does not take these data, inputs of shape {shapes}: "
            f"{one_line(error)}; name others with --data."
        ) from error
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"the network must return one tensor, got {type(outputs).__name__}; wrap it in a "
            "module that returns the logits."
        )
    if classes and outputs.ndim > 1:
        highest = max(int(t.max()) for _, t in placed)
        if highest >= outputs.shape[1]:
            raise ValueError(
                f"the network tells {outputs.shape[1]} classes apart, but the data have a class "
                f"{highest}; name the data it was trained on with --data and --dataset."
            )
    if not classes and outputs.shape != targets.shape:
        raise ValueError(
            f"targets that are no integers must have the shape of the outputs, "
            f"{list(outputs.shape)}, got {list(targets.shape)}."
        )
    return Subject(model, loss, placed)


def scalings_of(subject: Subject) -> tuple[Scalings | None, str | None]:
    """What may be rescaled, or why that is not known."""
    inputs = subject.batches[0][0]
    if isinstance(inputs, dict):
        return None, "the network takes keyword arguments, which are not traced"
    try:
        found = find_scalings(
            subject.model, inputs if isinstance(inputs, torch.Tensor) else tuple(inputs)
        )
    except ValueError as error:
        return None, " ".join(str(error).split())
    if not found.groups:
        stops = "; ".join(f"{stop.layer}: {stop.reason}" for stop in found.stopped)
        return None, f"nothing in this network may be rescaled ({stops})"
    return found, None


def one_line(error: Exception) -> str:
    """What went wrong in code or files of others, short enough for a sentence."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text[:200]}{'…' if len(text) > 200 else ''}"
