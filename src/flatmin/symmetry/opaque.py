"""Submodules that are left untraced: one operation each, of which nothing is known."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

_numbers = itertools.count()
_calls: dict[int, Callable[[list[Tensor]], list[Tensor]]] = {}
# What a module returned for inputs of these shapes, and how the tensors were packed.
_known: dict[tuple[Any, ...], tuple[list[Tensor], Any]] = {}

_library = torch.library.Library("flatmin", "DEF")  # type: ignore[no-untyped-call]
_library.define("opaque(int number, Tensor[] inputs) -> Tensor[]")  # type: ignore[no-untyped-call]


def _key(number: int, inputs: Sequence[Tensor]) -> tuple[Any, ...]:
    return (number, *(tuple(int(size) for size in tensor.shape) for tensor in inputs))


def _run(number: int, inputs: list[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in _calls[number](inputs)]


def _alike(number: int, inputs: list[Tensor]) -> list[Tensor]:
    return [torch.empty_like(each, device=each.device) for each in _known[_key(number, inputs)][0]]


_library.impl("opaque", _run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_fake("flatmin::opaque", _alike, lib=_library)


@contextmanager
def sealed(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Let submodules of a copy run as one operation each.

    What one returns is known from its first call with inputs of a shape, which must be a real one.
    """
    first = next(_numbers)
    for name in names:
        module = model.get_submodule(name)
        module.forward = _Sealed(module)
    try:
        yield
    finally:
        for number in [each for each in _calls if each > first]:
            del _calls[number]
        for key in [each for each in _known if each[0] > first]:
            del _known[key]


class _Sealed:
    """The forward of a module behind one operation."""

    def __init__(self, module: nn.Module):
        self._forward = type(module).forward
        self._module = module
        self._number = next(_numbers)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

        def computed(inputs: list[Tensor]) -> tuple[list[Tensor], Any]:
            given = list(leaves)
            for place, tensor in zip(places, inputs, strict=True):
                given[place] = tensor
            own_args, own_kwargs = tree_unflatten(given, spec)
            return tree_flatten(self._forward(self._module, *own_args, **own_kwargs))

        tensors = [leaves[place] for place in places]
        key = _key(self._number, tensors)
        if key not in _known:
            _known[key] = computed(tensors)
        _calls[self._number] = lambda inputs: computed(inputs)[0]
        outputs = torch.ops.flatmin.opaque(self._number, tensors)
        return tree_unflatten(list(outputs), _known[key][1])
