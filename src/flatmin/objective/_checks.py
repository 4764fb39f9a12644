"""What an empirical loss asks of its model, its data and its loss function."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

# Losses this many roundings apart, relative to their size, are of two functions.
_ROUNDINGS = 1000.0


def check_model(model: object) -> None:
    """Refuse what is no plain network."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise TypeError(
            "model must be the plain network, got DistributedDataParallel; pass model.module, "
            "and the processes as group=."
        )
    if isinstance(model, nn.DataParallel):
        raise TypeError("model must be the plain network, got DataParallel; pass model.module.")
    for kind in _sharding():
        for part in (*model.modules(), *model.parameters()):
            if isinstance(part, kind):
                raise TypeError(
                    f"model must be the plain network, got one with {kind.__name__}, which keeps "
                    "its parameters elsewhere; gather them into a copy that is not sharded, and "
                    "pass the processes as group=, or pass one sharded by FSDP2 to ShardedLoss."
                )
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"model must be the plain network, got a scripted {type(module).__name__}, whose "
                "parameters cannot be replaced; pass what it was made from."
            )
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(
                f"the parameters of the model must have numbers, but {name!r} is on the meta "
                "device; load the weights first, as after model.to_empty(device=...)."
            )
        if is_lazy(parameter):
            raise ValueError(
                f"the parameters of the model must have numbers, but {name!r} waits for a first "
                "batch; call the model on one."
            )


def check_repeatable(batches: object) -> None:
    """Refuse what holds no batches, and data that are gone once they were seen."""
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise TypeError(
            "batches must be a list of pairs (inputs, targets), or a DataLoader with "
            f"shuffle=False, got {type(batches).__name__}."
        )
    if isinstance(batches, Iterator):
        raise TypeError(
            "batches can be iterated only once, but a measure evaluates the loss many times; "
            "pass list(batches), or a DataLoader with shuffle=False."
        )


def check_loss_function(function: object) -> None:
    """Refuse what cannot be called with outputs and targets."""
    if isinstance(function, type):
        raise TypeError(
            f"loss_function must be a function of outputs and targets, got the class "
            f"{function.__name__}; make one, as in {function.__name__}()."
        )
    if not callable(function):
        raise TypeError(
            "loss_function must be a function of outputs and targets, such as "
            f"torch.nn.functional.cross_entropy, got {type(function).__name__}."
        )


def check_batch(batch: object) -> None:
    """Refuse what is no pair of inputs and a tensor of targets."""
    if not (isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Tensor)):
        raise TypeError(
            "each batch must be a pair (inputs, targets) with a tensor of targets, "
            f"got {_described(batch)}."
        )
    if hasattr(batch[0], "__array__") and not isinstance(batch[0], Tensor):
        raise TypeError(
            f"the inputs of a batch must be tensors, got {type(batch[0]).__name__}; convert them "
            "by torch.as_tensor."
        )
    if batch[1].ndim == 0:
        raise TypeError(
            "the first dimension of targets must be the example, got a tensor without dimensions; "
            "targets[None] is one example."
        )


def _described(batch: object) -> str:
    kind = type(batch).__name__
    if isinstance(batch, Mapping):
        return f"{kind}; hand the model all of it, as in (batch, batch['labels'])"
    if not isinstance(batch, tuple | list):
        return f"{kind}; batches are a list of such pairs"
    if len(batch) != 2:
        return f"{kind} of {len(batch)}"
    return f"targets of type {type(batch[1]).__name__}"


def check_seen(known: int, seen: int) -> None:
    """Refuse data that are others in a later pass."""
    if seen != known:
        raise ValueError(
            f"the data changed between passes: {known} examples, then {seen}; "
            "pass a list of batches, or a loader that gives the same data each time."
        )


def checked(named: dict[str, nn.Parameter], name: str, given: Tensor) -> nn.Parameter:
    """The parameter of a name; refuse one that the model lacks, or another shape."""
    if name not in named:
        raise ValueError(
            f"the model has no parameter named {name!r}; its names are those of "
            "model.named_parameters()."
        )
    if named[name].shape != given.shape:
        raise ValueError(
            f"params must have the shapes of the model, {tuple(named[name].shape)} for {name!r}, "
            f"got {tuple(given.shape)}."
        )
    return named[name]


def checked_loss(
    function: Callable[[Any, Tensor], Tensor], outputs: Any, targets: Tensor
) -> Tensor:
    """The loss of a batch; refuse what is no scalar."""
    try:
        loss = function(outputs, targets)
    except RuntimeError as error:
        error.add_note(
            "EmpiricalLoss hands outputs and floating targets to loss_function in float64; "
            "one that cannot take them may cast them back, as in outputs.float()."
        )
        raise
    except (TypeError, AttributeError) as error:
        if isinstance(outputs, Tensor):
            raise
        key = "0" if isinstance(outputs, tuple | list) else "'logits'"
        pick = f"outputs[{key}]" if hasattr(outputs, "__getitem__") else "outputs.logits"
        raise TypeError(
            f"loss_function must take what the model returns, a {type(outputs).__name__}, but "
            "failed on it; let it pick the tensor out, as in lambda outputs, targets: "
            f"cross_entropy({pick}, targets)."
        ) from error
    if not isinstance(loss, Tensor) or loss.ndim != 0 or loss.is_complex():
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"loss_function must return the mean over the batch, a real scalar tensor, got {got}; "
            "use reduction='mean'."
        )
    return loss


def changed(first: Sequence[float], second: Sequence[float], rounding: float = 0.0) -> str | None:
    """Name two losses of one batch that differ by more than rounding, relative to their size."""
    for a, b in zip_longest(first, second):
        # NaN at w is for the measure to refuse; here only a change counts.
        same = a == b or (a != a and b != b)
        if not same and (
            a is None or b is None or not abs(a - b) <= rounding * max(abs(a), abs(b))
        ):
            return f"{a} and then {b}"
    return None


def random_fault(first: Sequence[float], second: Sequence[float]) -> str | None:
    """A sentence, where two evaluations differ."""
    found = changed(first, second)
    return found and (
        f"the loss must be the same each time, got {found} at the same parameters; switch off "
        "dropout (model.eval()), shuffling and augmentation."
    )


def mode_fault(model: nn.Module, without: Sequence[float], with_: Sequence[float]) -> str | None:
    """A sentence, where the loss is another one when gradients are wanted."""
    state = [*model.parameters(), *model.buffers()]
    eps = [torch.finfo(t.dtype).eps for t in state if t.is_floating_point() or t.is_complex()]
    found = changed(without, with_, _ROUNDINGS * max(eps, default=0.0))
    return found and (
        f"the loss must be one function with and without gradients, got {found} at the same "
        "parameters; a part of the model asks torch.is_grad_enabled() or whether its parameters "
        "require gradients, and must do the same either way."
    )


def _sharding() -> list[type]:
    """Wrappers and tensors of sharded training, as far as they have been imported."""
    found = [
        getattr(sys.modules.get(module), name, None)
        for module, name in (
            ("torch.distributed.fsdp", "FullyShardedDataParallel"),
            ("torch.distributed.tensor", "DTensor"),
            ("torch.distributed.fsdp", "FSDPModule"),  # its weights may be whole for now
        )
    ]
    return [kind for kind in found if kind is not None]
