"""Outputs of a network at given tensors, with nothing left behind, and how far two lie apart."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.objective._conditions import devices_of, measuring
from flatmin.symmetry.groups import Symmetries
from flatmin.symmetry.private import changed, load, private_copy
from flatmin.symmetry.private import state_of as state_of

# What rounding explains of a change of outputs, relative to their rms.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3}
ROUNDING_BELOW = 0.1  # in bfloat16 and float16


@contextmanager
def same_randomness(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Run in full precision from the random state of ``seed``, and put all back afterwards."""
    devices = devices_of(model)
    with measuring(devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device.index].manual_seed(seed)
        yield


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return an example as the arguments of a forward: a mapping of words holds keywords."""
    if isinstance(example, Mapping) and all(isinstance(key, str) for key in example):
        return (), dict(example)
    return (tuple(example) if isinstance(example, tuple) else (example,)), {}


def outputs_at(model: nn.Module, state: Mapping[str, Tensor], example: Any) -> Tensor:
    """Return all outputs as one flat float64 tensor; see ``all_outputs``."""
    return torch.cat(all_outputs(model, state, example))


def all_outputs(model: nn.Module, state: Mapping[str, Tensor], example: Any) -> list[Tensor]:
    """Return every output, flat and in float64, in the model's present mode.

    Each call runs a fresh copy, and random layers see the same random numbers: whatever a forward
    writes or counts is forgotten.

    Args:
        model: The network. Read, never written.
        state: The tensors in which the copy is to differ from it.
        example: An input, a tuple of inputs, or a mapping of keyword arguments.

    Raises:
        ValueError: If the network returns no number.
    """
    twin = private_copy(model)
    load(twin, state)
    args, kwargs = arguments(example)
    with same_randomness(model), torch.no_grad():
        found = [_flat(t) for t in tensors_in(twin(*args, **kwargs))]
    if not found:
        raise ValueError(f"{type(model).__name__} returns no tensor on the example")
    return found


def deviation(before: Tensor, after: Tensor) -> float:
    """Return the largest change relative to the root mean square: max |after - before| / rms."""
    change = (after - before).abs().max() if len(before) else before.new_zeros(())
    return (change / before.square().mean().sqrt()).item() if change else 0.0


@dataclass(frozen=True, slots=True)
class Verification:
    """Outputs on the example before and after a transformation.

    Args:
        before: All outputs, flat, float64.
        after: The same after the transformation.
        deviation: Largest change over rms(before); about 1e-15 is rounding in float64, 1e-6
            in float32.

    Example:
        >>> one, two = torch.ones(2), torch.tensor([1.0, 1.5])
        >>> Verification(one, two, deviation(one, two)).deviation
        0.5
    """

    before: Tensor
    after: Tensor
    deviation: float


def verify(
    model: nn.Module, symmetries: Symmetries, elements: Sequence[Tensor], example: Any
) -> Verification:
    """Compare the outputs before and after a transformation, without applying it to the model.

    Args:
        model: The network, in the mode to verify. Read, never written.
        symmetries: What ``find_scalings``, ``find_permutations`` or ``find_flips`` returned.
        elements: One tensor per group, as ``symmetries.sample()`` returns them.
        example: An input, a tuple of inputs, or a mapping of keyword arguments.

    Returns:
        Both outputs and how far they lie apart.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).double()
        >>> from flatmin.symmetry import find_scalings
        >>> example = torch.ones(1, 1, dtype=torch.float64)
        >>> scalings = find_scalings(model, example)
        >>> verify(model, scalings, [torch.tensor([8.0])], example).deviation
        0.0

    Source:
        The report, figure 2.
    """
    state = state_of(model)
    before = outputs_at(model, {}, example)
    after = outputs_at(model, changed(state, symmetries.apply(state, elements)), example)
    return Verification(before, after, deviation(before, after))


def tensors_in(output: object, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Yield every number in what a network returns, whatever it is wrapped in."""
    seen = set() if seen is None else seen
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, bool | int | float | complex):
        yield torch.tensor(output, device="cpu")
    elif not isinstance(output, str | bytes | type | None) and id(output) not in seen:
        seen.add(id(output))
        if isinstance(output, Mapping):
            parts: Iterable[object] = output.values()
        elif isinstance(output, Collection):
            parts = output
        else:
            parts = getattr(output, "__dict__", {}).values()
        for part in parts:
            yield from tensors_in(part, seen)


def _flat(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.double().flatten()
