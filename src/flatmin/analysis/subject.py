"""A network and data that have been brought together, ready to be measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.analysis.own_targets import Loss, fitting_loss, weight_of
from flatmin.objective import EmpiricalLoss
from flatmin.objective._batches import Examples, Inputs, apply, arguments
from flatmin.objective._structure import tensors
from flatmin.objective._substitution import forgetting
from flatmin.objective._weights import Weight
from flatmin.symmetry import Mixings, Scalings, find_mixings, find_scalings
from flatmin.train.named import one_line


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is measured: a network in the mode, precision and place to measure in, and data.

    Attributes:
        model: The network.
        loss: Mean loss of a batch, from outputs and targets.
        batches: The data.
        weight: What the loss divides by, from the targets of a batch; None for what its name and
            the targets tell.

    Example:
        >>> from flatmin.analysis import look
        >>> model, data = nn.Linear(1, 1), (torch.ones(2, 1), torch.zeros(2, 1))
        >>> subject = look(model, data, measures=["one-step"], scalings=0).subject
        >>> subject.dtype, subject.loss.__name__, len(subject.batches)
        (torch.float64, 'mse_loss', 1)
    """

    model: nn.Module
    loss: Loss
    batches: list[Examples]
    weight: Weight | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The floating type in which it is measured."""
        kinds = (t.dtype for t in self.model.parameters() if t.is_floating_point())
        return next(kinds, torch.get_default_dtype())

    def objective(self, model: nn.Module | None = None) -> EmpiricalLoss:
        """The loss of the network, or of a copy of it."""
        weight = self.weight or weight_of(self.loss, (targets for _, targets in self.batches))
        network = self.model if model is None else model
        return EmpiricalLoss(network, self.loss, self.batches, weight=weight)


def fit(
    model: nn.Module,
    batches: list[Examples],
    device: torch.device,
    dtype: torch.dtype,
    loss: Loss | None = None,
    weight: Weight | None = None,
) -> Subject:
    """Bring network and data together, in eval mode, and try them.

    Args:
        model: The network; moved.
        batches: Inputs, and targets, of which ``fitting_loss`` tells the loss.
        device: Where to measure.
        dtype: In which floating type.
        loss: Mean loss of a batch, which then takes the targets as they are; None for the one that
            the targets mean.
        weight: What this loss divides by, from the targets of a batch; None as for ``Subject``.

    Returns:
        What can be measured.

    Raises:
        ValueError: If the network does not take the data, or their targets, or learns complex
            numbers.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_complex() and parameter.requires_grad:
            raise ValueError(
                f"the parameters must be real, but {name!r} is {parameter.dtype}; keep a real one "
                "and join its pairs in the forward, by torch.view_as_complex, or freeze it, by "
                "requires_grad_(False)."
            )
    moved = partial(_placed, device=device, dtype=dtype)
    # Batch normalization would mix examples, and dropout is another function at each call.
    _place(model, moved).eval()
    placed = [(apply(moved, inputs), moved(targets)) for inputs, targets in batches]
    sizes = [len(targets) for _, targets in placed]
    if not sum(sizes):
        raise ValueError("there must be at least one example, got none.")
    if loss is not None:
        return Subject(model, loss, placed, weight)
    by_shape = {_shapes(inputs): inputs for inputs, _ in reversed(placed)}
    *_, outputs = (_outputs(model, inputs, dtype) for inputs in by_shape.values())
    if outputs.ndim == 0 or len(outputs) != sizes[0]:
        raise ValueError(
            f"the network must return a row for each example, got the shape {list(outputs.shape)} "
            f"for {sizes[0]} examples; give the examples in the first dimension."
        )
    forms = sorted({tuple(targets.shape[1:]) for _, targets in placed})
    if len(forms) > 1:
        raise ValueError(
            f"targets must have one shape in all batches, got {', '.join(map(str, forms))}; pad "
            "them to one length, with -100 where none counts."
        )
    meant, targets = fitting_loss(outputs, torch.cat([targets for _, targets in placed]))
    inputs = [inputs for inputs, _ in placed]
    return Subject(model, meant, list(zip(inputs, torch.split(targets, sizes), strict=True)))


@contextmanager
def made_in(dtype: torch.dtype) -> Iterator[None]:
    """What a forward makes itself, such as the first state of a recurrence, gets this type too.

    Args:
        dtype: A floating type, that of the network and its inputs.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _place(model: nn.Module, moved: Callable[[Tensor], Tensor]) -> nn.Module:
    """What ``to`` does, which would make complex numbers real."""
    placed: nn.Module = model._apply(moved)  # type: ignore[no-untyped-call]  # torch's own
    return placed


def _placed(t: Tensor, *, device: torch.device | None, dtype: torch.dtype) -> Tensor:
    """Real numbers in a type, complex ones in that of the same precision, integers as they are."""
    if t.is_complex():
        return t.to(device=device, dtype=dtype.to_complex())
    return t.to(device=device, dtype=dtype if t.is_floating_point() else t.dtype)


def _shapes(inputs: Inputs) -> tuple[torch.Size, ...]:
    """The shapes of one example."""
    args, kwargs = arguments(inputs)
    return tuple(t.shape[1:] for t in [*args, *kwargs.values()])


def _outputs(model: nn.Module, inputs: Inputs, dtype: torch.dtype) -> Tensor:
    """Try the network on a batch."""
    outputs, error = _tried(model, inputs, dtype)
    if error is not None:
        args, kwargs = arguments(inputs)
        shapes = ", ".join(str(list(t.shape)) for t in [*args, *kwargs.values()])
        raise ValueError(
            f"the network does not take these data, inputs of shape {shapes}: "
            f"{one_line(error)}; {_remedy(model, inputs, dtype)}."
        ) from error
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"the network must return one tensor, got {type(outputs).__name__}; wrap it in a "
            "module that returns the logits."
        )
    return outputs


def _remedy(model: nn.Module, inputs: Inputs, dtype: torch.dtype) -> str:
    """What makes the network take its inputs, found by trying."""
    floating = apply(lambda t: t if t.is_complex() else t.to(dtype), inputs)
    if _tried(model, floating, dtype)[1] is None:
        return "integers are passed on as they are, so give these in floating point"
    single = partial(_placed, device=None, dtype=torch.float32)
    if _tried(_place(model, single), apply(single, inputs), torch.float32)[1] is None:
        return (
            "it makes float32 numbers itself, so measure with --precision fp32 (from Python, "
            "dtype=torch.float32)"
        )
    return "give others (on a command line, name others with --data)"


def _tried(model: nn.Module, inputs: Inputs, dtype: torch.dtype) -> tuple[Any, Exception | None]:
    args, kwargs = arguments(inputs)
    try:
        with torch.no_grad(), made_in(dtype), forgetting(model):
            return model(*args, **kwargs), None
    except Exception as error:  # a stranger's network can fail in any way
        return None, error


def scalings_of(subject: Subject) -> tuple[Scalings | None, str | None]:
    """What may be rescaled, or why that is not known."""
    try:
        found = find_scalings(subject.model, _example(subject))
    except ValueError as error:
        return None, " ".join(str(error).split())
    if not found.groups:
        stops = "; ".join(f"{stop.layer}: {stop.reason}" for stop in found.stopped)
        return None, f"nothing in this network may be rescaled ({stops})"
    return found, None


def mixings_of(subject: Subject, scalings: Scalings | None) -> Mixings | None:
    """What may be mixed by matrices, where it is known what may be rescaled."""
    if scalings is None:
        return None
    return find_mixings(subject.model, _example(subject), scalings=scalings)


def _example(subject: Subject) -> Any:
    inputs = subject.batches[0][0]
    return inputs if isinstance(inputs, torch.Tensor | dict) else tuple(inputs)


def digest(batches: Iterable[Examples]) -> str:
    """A short text that is the same for the same examples, however they are batched."""
    digests: dict[int, Any] = {}
    for inputs, targets in batches:
        args, kwargs = arguments(inputs)
        for place, value in enumerate((targets, *args, *(kwargs[key] for key in sorted(kwargs)))):
            for t in tensors(value):
                plain = t.detach().cpu().contiguous().resolve_conj()
                plain = torch.view_as_real(plain) if plain.is_complex() else plain
                plain = plain.double() if plain.is_floating_point() else plain.long()
                held = digests.setdefault(place, hashlib.sha256(str(t.shape[1:]).encode()))
                held.update(plain.numpy().tobytes())
    whole = b"".join(held.digest() for _, held in sorted(digests.items()))
    return hashlib.sha256(whole).hexdigest()[:16]
