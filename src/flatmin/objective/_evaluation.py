"""One pass over the data: the loss of each batch, while the model is at a point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flatmin._types import Params
from flatmin.objective._batches import Examples, Inputs, apply, arguments
from flatmin.objective._checks import checked_loss
from flatmin.objective._structure import map_tensors
from flatmin.objective._substitution import Substitution

LossFunction = Callable[[Any, Tensor], Tensor]


class Evaluated(NamedTuple):
    """A batch whose loss is known: what it was computed from is still in place, as it was.

    Outputs and targets are those of the model and of the data; ``loss_function`` copies and widens
    them. ``loss_of`` takes inputs and targets. The loss is in float64, and was in ``dtype``.
    """

    loss: Tensor
    dtype: torch.dtype
    inputs: Inputs
    outputs: Any
    targets: Tensor
    substitution: Substitution
    loss_function: LossFunction
    loss_of: LossFunction

    @property
    def point(self) -> dict[str, Tensor]:
        """The leaves to differentiate by."""
        return self.substitution.point


def evaluate(
    model: nn.Module,
    loss_function: LossFunction,
    batches: Iterable[Examples],
    params: Params,
    use: Callable[[Evaluated], None],
) -> int:
    """Hand each batch to ``use``, which runs while the model is at the point.

    Returns:
        How many examples there were.
    """
    device = device_of(model)
    substitution = Substitution(model, loss_function, params)

    of_outputs = on_copies(loss_function)

    def outputs_of(inputs: Inputs) -> Any:
        args, kwargs = arguments(inputs)
        return model(*args, **kwargs)

    def loss_of(inputs: Inputs, targets: Tensor) -> Tensor:
        return of_outputs(outputs_of(inputs), targets)

    seen = 0
    for passed, aims in batches:
        seen += len(aims)
        # Copies, for a model may write into what it is given.
        inputs, targets = copied(passed, device), aims.to(device)
        # Fresh state: statistics that a forward pass updates must not reach the next one.
        with substitution.fresh():
            outputs = outputs_of(inputs)
            loss = checked_loss(of_outputs, outputs, targets)
            given = inputs, outputs, targets
            use(Evaluated(loss.double(), loss.dtype, *given, substitution, of_outputs, loss_of))
    substitution.check_unchanged()
    return seen


def on_copies(loss_function: LossFunction) -> LossFunction:
    """Hand a loss function outputs and targets of its own, into which it may write.

    Floating ones are in float64.
    """

    def of_outputs(outputs: Any, targets: Tensor) -> Tensor:
        return loss_function(
            map_tensors(_wide_copy, outputs), widened(_copy(targets, targets.device))
        )

    return of_outputs


def device_of(model: nn.Module) -> torch.device:
    """Where inputs go: to the first parameter."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def copied(given: Inputs, device: torch.device) -> Any:
    """Inputs on a device, as copies."""
    return apply(lambda t: _copy(t, device), given)


def widened(t: Tensor) -> Tensor:
    """A floating tensor in float64; any other as it is."""
    return t.double() if t.is_floating_point() else t


def _wide_copy(t: Tensor) -> Tensor:
    return t.to(torch.float64, copy=True) if t.is_floating_point() else t.clone()


def _copy(t: Tensor, device: torch.device) -> Tensor:
    # Derivatives by inputs may be a part of the model.
    return t.detach().to(device, copy=True).requires_grad_(t.requires_grad)
