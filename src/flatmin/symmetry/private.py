"""A copy of a network that nobody else sees: whatever is done to it, the user's own stays."""

import copy
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode

from flatmin._given import check_network


def private_copy(model: nn.Module) -> nn.Module:
    """Copy a network, with whatever torch has hung on it.

    Pruning and the older weight normalization keep a computed weight as a plain attribute, which
    ``copy.deepcopy`` refuses because it is part of a graph. The copy gets its numbers.

    Raises:
        ValueError: If something in the network cannot be copied, or would go on to refer to the
            network itself.
    """
    _check_functions(model)
    try:
        with _Detached():
            return copy.deepcopy(model)
    except Exception as error:  # anything may hang on a stranger's network
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{type(model).__name__} cannot be copied ({reason}), and only copies are changed: "
            "take from it what cannot be copied, or define __deepcopy__"
        ) from error


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name; the tensors themselves, detached from autograd."""
    check_network(model)
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach() for name, tensor in named}


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a transformation replaced."""
    return {name: tensor for name, tensor in after.items() if tensor is not before[name]}


def load(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy tensors into the memory of the model's own, and compute anew what hangs on them."""
    own = state_of(model)
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
    with torch.enable_grad():
        for module in model.modules():
            for hook in module._forward_pre_hooks.values():
                if isinstance(hook, WeightNorm | BasePruningMethod):
                    hook(module, None)


def views_of(model: nn.Module) -> Iterator[Tensor]:
    """Tensors that modules keep as plain attributes, alone or in containers."""
    seen = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    for module in model.modules():
        for value in vars(module).values():
            yield from _tensors(value, seen)


def _tensors(value: object, seen: set[int]) -> Iterator[Tensor]:
    return (each for each in _inside(value, seen) if isinstance(each, Tensor))


def _inside(value: object, seen: set[int]) -> Iterator[object]:
    """What a value holds: the value itself, or what is in it if it is a container."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict | list | tuple):
        for each in list(value.values()) if isinstance(value, dict) else value:
            yield from _inside(each, seen)
    else:
        yield value


def _check_functions(model: nn.Module) -> None:
    # A copied function is the function itself, with all that it has closed over.
    parts = {id(each) for each in (*model.modules(), *model.parameters(), *model.buffers())}
    seen: set[int] = set()
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            for each in _inside(value, seen):
                if isinstance(each, types.FunctionType) and _reaches(each, parts, set()):
                    raise ValueError(
                        f"{name or type(model).__name__} keeps a function ({attribute}) that has "
                        "closed over a part of the network, so a copy of it would still compute "
                        "with the original: make it a method"
                    )


def _reaches(value: object, parts: set[int], seen: set[int]) -> bool:
    """Whether a function has closed over one of the parts."""
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)]
        held = [*cells, *(value.__defaults__ or ())]
    elif isinstance(value, types.MethodType):
        held = [value.__self__, value.__func__]
    else:
        return id(value) in parts
    return any(_reaches(each, parts, seen) for whole in held for each in _inside(whole, seen))


def _is_full(cell: types.CellType) -> bool:
    return cell != types.CellType()


class _Detached(TorchFunctionMode):
    """While active, tensors inside a graph are copied as their numbers."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            memo[id(tensor)] = copy.deepcopy(tensor.detach(), memo)
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))
