"""A network as a list of operations: exported by torch, with the numbers of one run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from flatmin._memory import Memory
from flatmin.symmetry.evaluate import arguments, same_randomness
from flatmin.symmetry.export import SHAPE_ONLY, Flat, check, exported, operation_name, quiet
from flatmin.symmetry.opaque import sealed
from flatmin.symmetry.private import private_copy, views_of


@dataclass(frozen=True, slots=True)
class Trace:
    """What a pass over a network needs to know about it.

    Args:
        nodes: Its operations in order.
        values: What each of them computed on the example.
        names: The name of the parameter or buffer that a node reads.
        params: Names of all parameters; every other name is a buffer.
        varying: Nodes that depend on the inputs, or are drawn at random.
        outputs: Nodes whose values leave the network.
        fixed: Names that may not move, each with the reason.
        places: Where in the model each node was computed.
    """

    nodes: tuple[fx.Node, ...]
    values: Mapping[fx.Node, Any]
    names: Mapping[fx.Node, str]
    params: frozenset[str]
    varying: frozenset[fx.Node]
    outputs: tuple[fx.Node, ...]
    fixed: Mapping[str, str]
    places: Mapping[fx.Node, "Place"]

    def place(self, node: fx.Node) -> "Place":
        """Return where in the model a node is computed."""
        return self.places.get(node, Place("", "", False))


@dataclass(frozen=True, slots=True)
class Place:
    """The module that computes something: its path, its class, and whether it has no parts."""

    path: str
    kind: str
    is_leaf: bool


def trace(model: nn.Module, example: Any, opaque: Sequence[str], keeps: frozenset[str]) -> Trace:
    """Export a copy of a network in its present mode, and run it once on an example.

    Args:
        model: The network. Read, never written.
        example: An input, a tuple of them, or a mapping of keywords.
        opaque: Names of submodules that are left untraced.
        keeps: Names of the operations that need not be written as simpler ones.

    Raises:
        ValueError: If the network does not run on the example, or cannot be program.
    """
    missing = set(opaque) - {name for name, _ in model.named_modules()}
    if missing:
        raise ValueError(f"opaque names {sorted(missing)}, which the model does not have")
    twin = private_copy(model)
    args, kwargs = arguments(example)
    with quiet(), torch.no_grad(), sealed(twin, opaque):
        check(twin, model, args, kwargs)
        program = exported(Flat(private_copy(twin)), args, kwargs, keeps)
        return _read(program, model, args, kwargs)


def _read(program: Any, model: nn.Module, args: Any, kwargs: Any) -> Trace:
    signature, graph = program.graph_signature, program.graph
    own = _own_names(model)
    state = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants: dict[str, str] = dict(signature.inputs_to_lifted_tensor_constants)
    memory = Memory(program)
    inputs = iter(tree_leaves((tuple(args), dict(kwargs))))
    given: list[Any] = []
    names, fixed, user = {}, {}, set()
    for node in graph.nodes:
        if node.op != "placeholder":
            break
        if node.name in state:
            names[node] = own[state[node.name]]
            given.append(_tensor(program, state[node.name]))
        elif node.name in constants:
            given.append(program.constants[constants[node.name]])
            for name in memory.names_of(given[-1]):
                fixed[own[name]] = "is read as a constant as well"
        else:
            user.add(node)
            given.append(next(inputs, None))
    memory = Memory(model)  # where a copy lies, two tensors over one memory are apart
    for name in memory.shared():
        fixed[name] = "shares its memory with another (tied weights)"
    for name in {name for view in views_of(model) for name in memory.names_of(view)}:
        fixed[name] = "is viewed by an attribute as well"
    recorder = _Recorder(program.graph_module)
    with same_randomness(model):
        recorder.run(*given)
    kinds = [str(spec.kind).rpartition(".")[2] for spec in signature.output_specs]
    returned = tree_leaves(next(node for node in graph.nodes if node.op == "output").args)
    outputs = [
        node
        for node, kind in zip(returned, kinds, strict=True)
        if isinstance(node, fx.Node) and kind != "BUFFER_MUTATION"
    ]
    params = frozenset(name for name, _ in model.named_parameters())
    varying = frozenset(_varying(graph, user))
    nodes = tuple(graph.nodes)
    places = dict(_places(graph, model))
    return Trace(nodes, recorder.values, names, params, varying, tuple(outputs), fixed, places)


def _places(graph: fx.Graph, model: nn.Module) -> Iterator[tuple[fx.Node, Place]]:
    modules = dict(model.named_modules(remove_duplicate=False))
    for node in graph.nodes:
        stack = [entry[0] for entry in (node.meta.get("nn_module_stack") or {}).values()]
        paths = [path.partition(".")[2] for path in stack if path.startswith("model.")]
        path = next((path for path in reversed(paths) if path in modules), "")
        module = modules[path]
        is_leaf = bool(path) and not any(True for _ in module.children())
        yield node, Place(path, type(module).__name__, is_leaf)


def _own_names(model: nn.Module) -> dict[str, str]:
    """From every name of a tensor to the one under which the model lists it."""
    named = [*model.named_parameters(), *model.named_buffers()]
    first = {id(tensor): name for name, tensor in named}
    every = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return {f"model.{name}": first[id(tensor)] for name, tensor in every}


def _tensor(program: Any, name: str) -> Tensor:
    return program.state_dict[name] if name in program.state_dict else program.constants[name]  # type: ignore[no-any-return]


def _varying(graph: fx.Graph, user: set[fx.Node]) -> Iterator[fx.Node]:
    found = set(user)
    for node in graph.nodes:
        if operation_name(node.target) in SHAPE_ONLY:
            continue
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags or found & set(node.all_input_nodes):
            found.add(node)
    yield from found


class _Recorder(fx.Interpreter):
    """Keeps what every node computes."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        # Exported views fit the strides of the export; here numbers may lie otherwise in memory.
        if target is torch.ops.aten.view.default:
            target = torch.ops.aten.reshape.default
        return super().call_function(target, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        self.values[n] = result = super().run_node(n)
        return result
