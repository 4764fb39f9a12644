"""Outputs of a network at given tensors, with nothing left behind, and how far two lie apart."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from flatmin.objective._conditions import devices_of, measuring
from flatmin.symmetry.groups import Symmetries


@contextmanager
def same_randomness(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Run in full precision from the random state of ``seed``, and put all back afterwards."""
    devices = devices_of(model)
    with measuring(devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device.index].manual_seed(seed)
        yield


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name; the tensors themselves, detached from autograd."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach() for name, tensor in named}


def outputs_at(model: nn.Module, state: Mapping[str, Tensor], example: Any) -> Tensor:
    """Return all outputs as one flat float64 tensor, in the model's present mode.

    Random layers see the same random numbers at every call; running statistics are not moved.
    """
    names = {name for name, _ in model.named_buffers()}
    own = {name: t.clone() if name in names else t for name, t in state.items()}
    inputs = example if isinstance(example, tuple) else (example,)
    with same_randomness(model), torch.no_grad():
        return torch.cat(
            [t.double().flatten() for t in _tensors(functional_call(model, own, inputs))]
        )


def deviation(before: Tensor, after: Tensor) -> float:
    """Return the largest change relative to the root mean square: max |after - before| / rms."""
    change = (after - before).abs().max()
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
        example: An input, or a tuple of inputs.

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
    before = outputs_at(model, state, example)
    after = outputs_at(model, symmetries.apply(state, elements), example)
    return Verification(before, after, deviation(before, after))


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, Sequence) and not isinstance(output, str):
        for value in output:
            yield from _tensors(value)
