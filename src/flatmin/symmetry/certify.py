"""Test any measure of a network for invariance, on the user's own network."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flatmin._streams import stream
from flatmin.symmetry.certificate import Certificate
from flatmin.symmetry.evaluate import (
    ROUNDING,
    ROUNDING_BELOW,
    deviation,
    outputs_at,
    same_randomness,
)
from flatmin.symmetry.find import find_scalings
from flatmin.symmetry.groups import OUTPUTS, Symmetries
from flatmin.symmetry.mixings import Mixings, find_mixings
from flatmin.symmetry.private import changed, load, private_copy, state_of
from flatmin.symmetry.symmetries import Scalings

# What rounding explains of the spread of a measure. Factors that are powers of two are exact, so it
# is little.
_SPREAD = {torch.float64: 1e-11, torch.float32: 1e-4}
_MIXED = 1  # networks whose units are mixed by matrices
_NOISE = 0.1  # relative size of the change by which it is seen what a measure depends on


def certify(
    measure: Callable[[nn.Module], Any],
    model: nn.Module,
    example: Any,
    *,
    scalings: Symmetries | None = None,
    mixings: Mixings | None = None,
    num_scalings: int = 50,
    generator: torch.Generator | None = None,
    low: float = 1 / 16,
    high: float = 16.0,
    tolerance: float | None = None,
) -> Certificate:
    r"""Rescale a network again and again, and report what a measure makes of it.

    .. math:: \text{spread} = \frac{\max_k m(w_k) - \min_k m(w_k)}{|\text{mean}_k\, m(w_k)|},
        \quad f_{w_0} = f_{w_1} = \dots = f_{w_n}

    Each network is the given one after factors of its own, powers of two between ``low`` and
    ``high``: they scale numbers exactly, so that an invariant measure gives nearly the same bits,
    and a small dependence shows beside a large value. The model is never touched: each evaluation
    gets a fresh copy, and the same random numbers from torch's default generator. The outputs on
    ``example`` are compared each time; if they moved, the certificate is void.

    The measure is also taken with noise on the parameters that were transformed, and with noise on
    all others. One that does not see the first was not tested; of one that sees the second,
    nothing is known there, and the parameters are named.

    Args:
        measure: Any function of the network to a number, or to an object with a ``value``. A
            measure that draws from a generator of its own must seed it at each call.
        model: The network, in the mode and dtype to test.
        example: An input, or a tuple of inputs, on which outputs are compared.
        scalings: What to apply; ``find_scalings(model, example)`` if not given. Permutations and
            sign flips do as well.
        mixings: Matrices to try as well, in one network more; if neither these nor ``scalings``
            are given, those of ``find_mixings(model, example)``. The verdict says whether the
            measure follows them, which none with ``T = |w|`` does.
        num_scalings: Number of transformed networks.
        generator: Source of the factors; seed 0 if not given.
        low: Smallest factor.
        high: Largest factor.
        tolerance: Spread that counts as invariant; 1e-11 for float64 and 1e-4 for float32 if not
            given. A dependence below it is not seen: measure in float64, and a rise, not a loss.

    Returns:
        All values and deviations, with a verdict; ``print`` shows it.

    Raises:
        ValueError: If nothing in the model may be rescaled, or ``num_scalings`` is below one.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
        >>> x = torch.randn(5, 2, dtype=torch.float64)
        >>> certify(lambda network: network(x).square().mean().item(), model, x).invariant
        True
        >>> certify(lambda network: network[0].weight.norm().item(), model, x).invariant
        False

    Source:
        Dinh et al. 2017, arXiv:1703.04933, on measures that rescaling can fool.
    """
    if num_scalings < 1:
        raise ValueError(f"num_scalings must be at least 1, got {num_scalings}")
    if scalings is None:
        scalings = find_scalings(model, example)
        mixings = find_mixings(model, example, scalings=scalings) if mixings is None else mixings
    symmetries = scalings
    if not symmetries.groups:
        raise ValueError(
            f"nothing in this model may be transformed, so there is nothing to test:\n{symmetries}"
        )
    generator = stream("certify") if generator is None else generator
    trainable = dict(model.named_parameters())
    start = state_of(model)
    before = outputs_at(model, {}, example)
    values, deviations, norms = [_measured(measure, model, {})], [], [_norm(start, trainable)]
    for _ in range(num_scalings):
        state = symmetries.apply(start, _drawn(symmetries, generator, low, high))
        moved = changed(start, state)
        values.append(_measured(measure, model, moved))
        norms.append(_norm(state, trainable))
        deviations.append(deviation(before, outputs_at(model, moved, example)))
    dtype = next((t.dtype for t in trainable.values()), torch.float32)
    coverage, untouched = _coverage(symmetries, trainable)
    tested = [name for name in trainable if name not in untouched]
    seen = [_measured(measure, model, _noisy(start, names)) for names in (tested, untouched)]
    mixed, apart = [], []
    mixings = Mixings((), ()) if mixings is None else mixings
    for _ in range(_MIXED if mixings.groups else 0):
        moved = changed(start, mixings.apply(start, mixings.sample(generator)))
        mixed.append(_measured(measure, model, moved))
        apart.append(deviation(before, outputs_at(model, moved, example)))
    return Certificate(
        values=tuple(values),
        deviations=tuple(deviations),
        weight_norms=tuple(norms),
        tolerance=_SPREAD.get(dtype, 0.1) if tolerance is None else tolerance,
        allowed_deviation=ROUNDING.get(dtype, ROUNDING_BELOW),
        units=sum(group.size for group in symmetries.groups),
        coverage=coverage,
        untouched=untouched,
        sees_tested=seen[0] != values[0],
        sees_untouched=bool(untouched) and seen[1] != values[0],
        mixed_values=tuple(mixed),
        mixed_deviations=tuple(apart),
        mixings=mixings.counted(),
    )


def _drawn(
    symmetries: Symmetries, generator: torch.Generator, low: float, high: float
) -> tuple[Tensor, ...]:
    if not isinstance(symmetries, Scalings):
        return symmetries.sample(generator)
    if not 0 < low <= high < math.inf:
        raise ValueError(f"factors need 0 < low <= high, got low={low}, high={high}")
    span = math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1
    return tuple(
        2.0 ** torch.randint(*span, (group.size,), generator=generator, device=generator.device)
        for group in symmetries.groups
    )


def _noisy(state: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Tensors with noise in proportion to their size, or to one where they are zero."""
    noise, found = stream("certify", "noise"), {}
    for name in names:
        tensor = state[name]
        drawn = torch.randn(tensor.shape, generator=noise, device="cpu", dtype=torch.float64)
        size = tensor.double().square().mean().sqrt() or 1.0
        found[name] = tensor + (_NOISE * size * drawn.to(tensor.device)).to(tensor.dtype)
    return found


def _coverage(
    symmetries: Symmetries, params: Mapping[str, Tensor]
) -> tuple[float, tuple[str, ...]]:
    """The part of the parameters that the groups move, and the names of the rest."""
    moved = {slot.name for group in symmetries.groups for slot in group.slots}
    # The units of the last layer are the outputs: its bias is what no symmetry could move.
    ends = [stop.producers for stop in symmetries.stopped if stop.reason == OUTPUTS]
    fixed = {f"{layer}.bias" for producers in ends for layer in producers}
    counted = {name: p.numel() for name, p in params.items() if name in moved or name not in fixed}
    untouched = tuple(name for name in counted if name not in moved)
    whole = sum(counted.values())
    return 1.0 - sum(counted[name] for name in untouched) / max(whole, 1), untouched


def _measured(
    measure: Callable[[nn.Module], Any], model: nn.Module, state: dict[str, Tensor]
) -> float:
    twin = private_copy(model)
    twin.zero_grad()
    load(twin, state)
    with same_randomness(model):
        result = measure(twin)
    value = getattr(result, "value", result)
    return float(value.detach() if isinstance(value, Tensor) else value)


def _norm(state: dict[str, Tensor], names: dict[str, nn.Parameter]) -> float:
    return math.sqrt(sum(state[name].double().square().sum().item() for name in names))
