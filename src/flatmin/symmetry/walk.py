"""Follow classes of units through a traced network: who makes, reads and stops them."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from torch import Tensor, fx, nn

from flatmin.symmetry.groups import Group, Stop
from flatmin.symmetry.slots import Slot

Kind = Literal["scale", "permute", "flip"]

# What a rule does with one node: note who makes and reads units, and say what its output carries.
Rule = Callable[["Walk", fx.Node], "Wire | None"]

Fact = TypeVar("Fact", str, Slot)


@dataclass(frozen=True, slots=True)
class Wire:
    """One axis of an intermediate tensor that carries a class of units.

    A tensor without a wire holds nothing that a transformation of units changes, or is stopped.
    """

    units: int
    dim: int
    block: int = 1


class Walk:
    """One pass over a graph for one kind of symmetry.

    Every class of units starts at a producer. Joining two classes (an addition) ties them; a stop
    withdraws the whole class. What was neither stopped nor left unread is a group.
    """

    def __init__(
        self,
        kind: Kind,
        graph: fx.Graph,
        model: nn.Module,
        shapes: Mapping[str, tuple[int, ...]],
        shared: Collection[str],
    ):
        self.kind = kind
        self.model = model
        self._shapes = shapes
        self._names = _canonical_names(model)
        self._uses = _count_uses(graph, model)
        self._shared = shared
        self._wires: dict[fx.Node, Wire | None] = {}
        self._parents: list[int] = []
        self._sizes: list[int] = []
        self._slots: list[tuple[int, Slot]] = []
        self._producers: list[tuple[int, str]] = []
        self._consumers: list[tuple[int, str]] = []
        self._notes: list[tuple[int, str]] = []
        self._stops: list[tuple[int, str, str]] = []

    # Reading the graph.

    def module(self, node: fx.Node) -> nn.Module | None:
        """Return the layer that a node calls, if it calls one."""
        return self.model.get_submodule(str(node.target)) if node.op == "call_module" else None

    def shape(self, node: object) -> tuple[int, ...]:
        """Return the shape of what a node computes; empty if that is no tensor."""
        return self._shapes.get(node.name, ()) if isinstance(node, fx.Node) else ()

    def is_tensor(self, node: fx.Node) -> bool:
        """Tell whether a node computes a tensor."""
        return node.name in self._shapes

    def wire(self, argument: object) -> Wire | None:
        """Return what an argument of a node carries."""
        return self._wires.get(argument) if isinstance(argument, fx.Node) else None

    def width(self, wire: Wire) -> int:
        """Return the length of the axis that a wire runs along."""
        return self._sizes[wire.units] * wire.block

    def size(self, wire: Wire) -> int:
        """Return the number of units of a wire."""
        return self._sizes[wire.units]

    def tensor(self, argument: object) -> Tensor | None:
        """Return the parameter or buffer that an argument reads, if it reads one directly."""
        if isinstance(argument, fx.Node) and argument.op == "get_attr":
            value = _attribute(self.model, str(argument.target))
            return value if isinstance(value, Tensor) else None
        return None

    # What rules do.

    def start(self, node: fx.Node, size: int, dim: int) -> Wire:
        """Begin a class of units that ``node`` makes."""
        self._parents.append(len(self._parents))
        self._sizes.append(size)
        wire = Wire(len(self._parents) - 1, dim)
        self._producers.append((wire.units, layer_name(node)))
        return wire

    def made_by(self, wire: Wire, node: fx.Node) -> None:
        """Name ``node`` as a further layer that makes the units."""
        self._producers.append((wire.units, layer_name(node)))

    def read_by(self, wire: Wire, node: fx.Node, note: str = "") -> None:
        """Name ``node`` as a layer that reads the units."""
        self._consumers.append((wire.units, layer_name(node)))
        if note:
            self._notes.append((wire.units, note))

    def attach(self, wire: Wire, node: fx.Node, tensor: Tensor | None, slot: Slot) -> None:
        """Make part of a tensor move with the units; ``slot.name`` is filled in here."""
        if tensor is None:
            return
        name = self._names.get(id(tensor))
        if name is None:
            self.stop(wire, node, "its weight is computed, not a parameter")
        elif self._uses[id(tensor)] > 1 or name in self._shared:
            self.stop(wire, node, f"{name!r} is used more than once (tied weights)")
        else:
            self._slots.append((wire.units, replace(slot, name=name)))

    def stop(self, wire: Wire, node: fx.Node, reason: str) -> None:
        """Withdraw a class of units."""
        self._stops.append((wire.units, layer_name(node), reason))

    def is_stopped(self, wire: Wire) -> bool:
        """Tell whether a class is withdrawn already: its factor is one for certain."""
        root = self._root(wire.units)
        return any(self._root(units) == root for units, _, _ in self._stops)

    def join(self, node: fx.Node, a: Wire, b: Wire) -> None:
        """Tie two classes that meet: they carry the same element or none."""
        if (self.size(a), a.block) != (self.size(b), b.block):
            for wire in (a, b):
                self.stop(wire, node, "joins units of different number or layout")
            return
        self._parents[self._root(a.units)] = self._root(b.units)

    # The pass, and what it found.

    def run(self, graph: fx.Graph, rule_of: Callable[[fx.Node, nn.Module | None], Rule]) -> None:
        """Visit every node in order."""
        for node in graph.nodes:
            self._wires[node] = rule_of(node, self.module(node))(self, node)
        if self.model._forward_hooks or self.model._forward_pre_hooks:
            for units in range(len(self._parents)):
                self._stops.append((units, "model", "has forward hooks, which may change anything"))

    def groups(self) -> tuple[Group, ...]:
        """Return the classes that were neither stopped nor left unread, first made first."""
        stopped = {self._root(units) for units, _, _ in self._stops}
        return tuple(
            Group(
                size=self._sizes[root],
                slots=tuple(self._of(root, self._slots)),
                producers=tuple(self._of(root, self._producers)),
                consumers=tuple(self._of(root, self._consumers)),
                note="; ".join(self._of(root, self._notes)),
            )
            for root in dict.fromkeys(map(self._root, range(len(self._parents))))
            if root not in stopped and any(self._of(root, self._consumers))
        )

    def stopped(self) -> tuple[Stop, ...]:
        """Return the stops, each with the layers whose units it withdraws."""
        found = dict.fromkeys((self._root(u), layer, reason) for u, layer, reason in self._stops)
        return tuple(
            Stop(layer, reason, tuple(self._of(root, self._producers)))
            for root, layer, reason in found
        )

    def _root(self, units: int) -> int:
        while self._parents[units] != units:
            units = self._parents[units]
        return units

    def _of(self, root: int, facts: list[tuple[int, Fact]]) -> Iterator[Fact]:
        yield from dict.fromkeys(fact for units, fact in facts if self._root(units) == root)


def layer_name(node: fx.Node) -> str:
    """Return a name that a reader of the model knows: the module's path, or where a function is."""
    if node.op == "call_module":
        return str(node.target)
    if node.op == "output":
        return "output"
    inside = list((node.meta.get("nn_module_stack") or {"": ""}).keys())[-1]
    return f"{inside}: {node.name}" if inside else node.name


def _attribute(model: nn.Module, path: str) -> object:
    value: object = model
    for part in path.split("."):
        value = getattr(value, part)
    return value


def _canonical_names(model: nn.Module) -> dict[int, str]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {id(tensor): name for name, tensor in named}


def _count_uses(graph: fx.Graph, model: nn.Module) -> dict[int, int]:
    uses: dict[int, int] = {}
    for node in graph.nodes:
        tensors: list[Tensor] = []
        if node.op == "call_module":
            module = model.get_submodule(node.target)
            tensors = [*module.parameters(), *module.buffers()]
        elif node.op == "get_attr":
            value = _attribute(model, node.target)
            tensors = [value] * len(node.users) if isinstance(value, Tensor) else []
        for tensor in tensors:
            uses[id(tensor)] = uses.get(id(tensor), 0) + 1
    return uses
