"""A copy of a network that nobody else sees: whatever is done to it, the user's own stays."""

import copy
import types
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
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


class Memory:
    """Where the parameters and buffers of a network lie."""

    def __init__(self, model: nn.Module) -> None:
        self._named = [*model.named_parameters(), *model.named_buffers()]
        self._objects = {id(tensor): name for name, tensor in self._named}
        self._places = sorted((*_extent(tensor), name) for name, tensor in self._named)
        self._ends = list(accumulate((end for _, end, _ in self._places), max))

    def names_of(self, tensor: Tensor) -> set[str]:
        """Name every parameter and buffer that shares memory with a tensor, or is it."""
        start, end = _extent(tensor)
        found = {self._objects[id(tensor)]} if id(tensor) in self._objects else set()
        # From the last that begins before the tensor ends, back to where all have ended.
        last = bisect_left(self._places, (end, 0, ""))
        while last and self._ends[last - 1] > start:
            last -= 1
            if self._places[last][1] > start:
                found.add(self._places[last][2])
        return found

    def shared(self) -> set[str]:
        """Name those that share memory with another, with an attribute, or within themselves."""
        found = set()
        for _, tensor in self._named:
            names = self.names_of(tensor)
            if len(names) > 1 or _repeats(tensor):
                found |= names
        return found


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


def _extent(tensor: Tensor) -> tuple[int, int]:
    """First byte and the byte after the last; an empty range where there is no memory."""
    if tensor.layout is not torch.strided or not tensor.numel() or tensor.device.type == "meta":
        return 0, 0
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in pairs)
    start = tensor.data_ptr()
    return start, start + (last + 1) * tensor.element_size()


def _repeats(tensor: Tensor) -> bool:
    if tensor.layout is not torch.strided:
        return False
    return any(n > 1 and s == 0 for n, s in zip(tensor.shape, tensor.stride(), strict=True))


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
