"""A traced copy of a network: its graph, the shapes in it, and which tensors are used where."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from flatmin.symmetry.evaluate import same_randomness
from flatmin.symmetry.private import Memory, private_copy, views_of

# What of a tensor may be asked without reading its numbers.
_METADATA = {
    *("shape", "size", "dim", "ndim", "numel", "nelement", "stride", "dtype", "device", "layout"),
    *("requires_grad", "is_leaf", "type", "element_size", "is_floating_point", "is_complex"),
    *("is_cuda", "is_sparse", "__len__", "__hash__"),
}


@dataclass(frozen=True, slots=True)
class Trace:
    """What a pass over a network needs to know about it.

    Args:
        model: A copy of the network; tracing leaves constants behind, running moves statistics.
        graph: Its operations in order.
        shapes: Shape of every tensor computed, by the name of its node.
        names: Name of every parameter and buffer, by identity.
        tied: Names of those used more than once: also where a forward reads their numbers while it
            is traced, or keeps a view of them.
    """

    model: nn.Module
    graph: fx.Graph
    shapes: Mapping[str, tuple[int, ...]]
    names: Mapping[int, str]
    tied: frozenset[str]

    def module(self, node: fx.Node) -> nn.Module | None:
        """Return the layer that a node calls, if it calls one."""
        return self.model.get_submodule(str(node.target)) if node.op == "call_module" else None

    def tensor(self, argument: object) -> Tensor | None:
        """Return the parameter or buffer that an argument reads, if it reads one directly."""
        if not isinstance(argument, fx.Node) or argument.op != "get_attr":
            return None
        value: object = self.model
        for part in str(argument.target).split("."):
            value = getattr(value, part)
        return value if isinstance(value, Tensor) else None


def trace(model: nn.Module, example: Any, opaque: Sequence[str] = ()) -> Trace:
    """Trace a copy of a network in its present mode, and run it once on an example."""
    missing = set(opaque) - {name for name, _ in model.named_modules()}
    if missing:
        raise ValueError(f"opaque names {sorted(missing)}, which the model does not have")
    twin = private_copy(model)
    memory = Memory(twin)
    reads = _Reads(memory)
    try:
        with reads:
            graph = _Tracer(opaque).trace(twin)
    except Exception as error:
        raise ValueError(
            f"torch.fx cannot trace {type(model).__name__}: {error}. Name the submodule that "
            "branches on its data in opaque=[...]; nothing that enters it will be offered"
        ) from error
    names = {id(tensor): name for name, tensor in _named(twin)}
    found = Trace(twin, graph, _shapes(twin, graph, example), names, frozenset())
    uses = Counter(reads.names)
    for tensor in _used(found):
        uses.update(memory.names_of(tensor))
    often = {name for name, count in uses.items() if count > 1}
    own = Memory(model)  # where a copy lies, two parameters over one memory are apart
    viewed = {name for tensor in views_of(model) for name in own.names_of(tensor)}
    return Trace(twin, graph, found.shapes, names, frozenset(often | own.shared() | viewed))


class _Reads(TorchFunctionMode):
    """While a network is traced, note whose numbers are read outside of the graph."""

    def __init__(self, memory: Memory):
        super().__init__()
        self.memory = memory
        self.names: set[str] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        # A property is known by its own name, not by that of its getter.
        name = getattr(getattr(func, "__self__", None), "__name__", name)
        leaves = [] if name in _METADATA else tree_leaves((args, kwargs))
        # What meets a proxy becomes part of the graph, and is counted there.
        if not any(isinstance(leaf, fx.Proxy) for leaf in leaves):
            for leaf in leaves:
                if isinstance(leaf, Tensor):
                    self.names |= self.memory.names_of(leaf)
        return func(*args, **(kwargs or {}))


class _Tracer(fx.Tracer):
    def __init__(self, opaque: Sequence[str]):
        super().__init__()
        self.opaque = opaque

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        named = module_qualified_name in self.opaque
        return named or super().is_leaf_module(m, module_qualified_name)


class _ShapeRecorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n.name] = tuple(result.shape)
        return result


def _shapes(model: nn.Module, graph: fx.Graph, example: Any) -> dict[str, tuple[int, ...]]:
    inputs = example if isinstance(example, tuple) else (example,)
    recorder = _ShapeRecorder(fx.GraphModule(model, graph))
    try:
        with same_randomness(model), torch.no_grad():
            recorder.run(*inputs)
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} does not run on the example, of shapes "
            f"{[tuple(getattr(x, 'shape', ())) for x in inputs]}: {str(error).splitlines()[0]}"
        ) from error
    return recorder.shapes


def _used(found: Trace) -> Iterator[Tensor]:
    for node in found.graph.nodes:
        module, tensor = found.module(node), found.tensor(node)
        if module is not None:
            yield from (each for _, each in _named(module))
        elif tensor is not None:
            yield from [tensor] * len(node.users)


def _named(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]
