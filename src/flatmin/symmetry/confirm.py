"""Try what a trace claims: transform a copy at random, and look at every output."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from flatmin._streams import stream
from flatmin.symmetry.evaluate import ROUNDING, ROUNDING_BELOW, all_outputs
from flatmin.symmetry.groups import Group, Stop, Symmetries
from flatmin.symmetry.private import changed, private_copy, state_of

Claim = TypeVar("Claim", bound=Symmetries)

# How far from the network and the example the other trials are, relative to each tensor's rms.
_NOISE = 0.1
# An output counts at least as if it had this part of the rms of all, so that what is zero but for
# rounding may differ by rounding.
_FLOOR = 1e-3


def confirmed(claim: Claim, model: nn.Module, example: Any) -> Claim:
    """Return the groups of a claim under which all outputs stay, and name the others.

    Three trials are made: the network as it is on the example, one with noise on parameters and
    inputs, for zeros hide what ordinary numbers show, and one on inputs drawn anew.

    Args:
        claim: What a trace has found.
        model: The network. Read, never written.
        example: An input, a tuple of inputs, or a mapping of keyword arguments.
    """
    if not claim.groups:
        return claim
    trials = list(trials_of(model, example))
    if moved(claim, trials) is None:
        return claim
    kept, stops = [], []
    for group in claim.groups:
        reason = moved(replace(claim, groups=(group,)), trials)
        kept += [group] if reason is None else []
        stops += [] if reason is None else [_stop(group, reason)]
    rest = replace(claim, groups=tuple(kept), stopped=(*claim.stopped, *stops))
    reason = moved(rest, trials)
    if reason is None:
        return rest
    stops += [_stop(group, reason) for group in kept]
    return replace(claim, groups=(), stopped=(*claim.stopped, *stops))


def _stop(group: Group, reason: str) -> Stop:
    return Stop("forward", reason, group.producers)


@dataclass(frozen=True, slots=True)
class Trial:
    """A network and inputs on which a claim is tried, and what comes out without it."""

    model: nn.Module
    example: Any
    outputs: list[Tensor]
    rounding: float


def moved(claim: Symmetries, trials: Sequence[Trial]) -> str | None:
    """Say how the outputs change under an element of a claim; None if they do not."""
    if not trials:
        return "this cannot be confirmed: the network does not run on a copy of itself"
    for trial in trials:
        state = state_of(trial.model)
        element = claim.far(stream("confirm", "element"))
        after = all_outputs(trial.model, changed(state, claim.apply(state, element)), trial.example)
        if [len(t) for t in after] != [len(t) for t in trial.outputs]:
            return "the outputs change their number when these units are transformed"
        change = _largest_change(trial.outputs, after)
        if not change <= trial.rounding:
            return (
                f"the outputs move by {change:.1e} of their rms when these units are transformed, "
                "so the forward depends on them in a way that a trace does not show"
            )
    return None


def _largest_change(before: list[Tensor], after: list[Tensor]) -> float:
    whole = _FLOOR * _rms(torch.cat(before))
    changes = [0.0]
    for old, new in zip(before, after, strict=True):
        # Infinities of a mask are equal to themselves, and what was no number says nothing.
        same = (old == new) | (old.isnan() & new.isnan())
        change = torch.where(same, 0.0, new - old).abs()
        largest = change.max().item() if len(change) else 0.0
        changes.append(largest / (_rms(old) + whole) if largest else 0.0)
    return max(changes, key=lambda change: float("inf") if change != change else change)


def _rms(values: Tensor) -> float:
    finite = values[values.isfinite()]
    return float(finite.square().mean().sqrt()) if len(finite) else 0.0


def trials_of(model: nn.Module, example: Any) -> Iterator[Trial]:
    """The network as it is on the example, near it, and on inputs drawn anew."""
    for noise, move in ((0.0, None), (_NOISE, _near), (_NOISE, _anew)):
        # In float64, unless the forward insists on another type.
        for double in (True, False):
            trial = _trial(model, example, noise, double, move)
            if trial is not None:
                yield trial
                break


def _trial(
    model: nn.Module, example: Any, noise: float, double: bool, move: Callable[..., Any] | None
) -> Trial | None:
    generator = stream("confirm", "point")
    twin = private_copy(model)
    try:
        if double:
            twin = _in_double(twin)
            example = tree_map(_doubled, example)
        if move is not None:
            with torch.no_grad():
                for parameter in twin.parameters():
                    parameter.copy_(_near(parameter, noise, generator))
            example = tree_map(lambda value: move(value, noise, generator), example)
        with _Lowest() as lowest:
            outputs = all_outputs(twin, {}, example)
    except Exception:  # a stranger's forward may fail in any way on other types and numbers
        return None
    rounding = max(ROUNDING.get(kind, ROUNDING_BELOW) for kind in (torch.float64, *lowest.kinds))
    return Trial(twin, example, outputs, rounding)


def _doubled(value: Any) -> Any:
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return value.double() if is_float else value


def _in_double(model: nn.Module) -> nn.Module:
    for module in model.modules():
        var = getattr(module, "running_var", None)
        if isinstance(var, Tensor):
            # As the claim has it: rounded to the type of the statistics.
            module.eps = float(torch.tensor(module.eps, dtype=var.dtype, device="cpu"))  # type: ignore[assignment]
    return model.double()


def _near(value: Any, noise: float, generator: torch.Generator) -> Any:
    """A tensor with noise in proportion to its rms; anything else as it is."""
    if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
        return value
    sound = torch.where(value.isfinite(), value, torch.zeros_like(value)).detach()
    size = float(sound.abs().double().square().mean().sqrt()) if sound.numel() else 0.0
    drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64, device="cpu")
    return sound + (noise * (size or 1.0) * drawn).to(sound)


def _anew(value: Any, noise: float, generator: torch.Generator) -> Any:
    """Numbers drawn anew, normal with the same rms; whole numbers as the old ones, reordered."""
    if not isinstance(value, Tensor) or value.is_complex() or not value.numel():
        return value
    if value.is_floating_point():
        return _near(value * 0, 1.0, generator) * (_rms(value.double()) or 1.0)
    order = torch.randperm(value.numel(), generator=generator, device="cpu")
    return value.reshape(-1)[order.to(value.device)].view(value.shape)


class _Lowest(TorchFunctionMode):
    """While active, note in which floating types is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: set[torch.dtype] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and (result.is_floating_point() or result.is_complex()):
            self.kinds.add(torch.empty(0, dtype=result.dtype, device="cpu").abs().dtype)
        return result
