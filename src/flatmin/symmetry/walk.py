"""Follow classes of units through a traced network: who makes, reads and stops them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from torch import Tensor, fx, nn

from flatmin.symmetry.groups import Group, Stop
from flatmin.symmetry.slots import Slot
from flatmin.symmetry.trace import Trace

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
    """One pass over a traced network for one kind of symmetry.

    Every class of units starts at a producer. Joining two classes (an addition) ties them; a stop
    withdraws the whole class. What was neither stopped nor left unread is a group.
    """

    def __init__(self, kind: Kind, traced: Trace):
        self.kind = kind
        self.module = traced.module
        self.tensor = traced.tensor
        self._traced = traced
        self._wires: dict[fx.Node, Wire | None] = {}
        self._parents: list[int] = []
        self._sizes: list[int] = []
        self._slots: list[tuple[int, Slot]] = []
        self._producers: list[tuple[int, str]] = []
        self._consumers: list[tuple[int, str]] = []
        self._notes: list[tuple[int, str]] = []
        self._stops: list[tuple[int, str, str]] = []

    # Reading the graph.

    def shape(self, node: object) -> tuple[int, ...]:
        """Return the shape of what a node computes; empty if that is no tensor."""
        return self._traced.shapes.get(node.name, ()) if isinstance(node, fx.Node) else ()

    def is_tensor(self, node: fx.Node) -> bool:
        """Tell whether a node computes a tensor."""
        return node.name in self._traced.shapes

    def wire(self, argument: object) -> Wire | None:
        """Return what an argument of a node carries."""
        return self._wires.get(argument) if isinstance(argument, fx.Node) else None

    def width(self, wire: Wire) -> int:
        """Return the length of the axis that a wire runs along."""
        return self._sizes[wire.units] * wire.block

    def size(self, wire: Wire) -> int:
        """Return the number of units of a wire."""
        return self._sizes[wire.units]

    # What rules do.

    def start(self, node: fx.Node, size: int, dim: int) -> Wire:
        """Begin a class of units that ``node`` makes."""
        self._parents.append(len(self._parents))
        self._sizes.append(size)
        wire = Wire(len(self._parents) - 1, dim)
        self._producers.append((wire.units, layer_name(node)))
        return wire

    def read_by(self, wire: Wire, node: fx.Node, note: str = "") -> None:
        """Name ``node`` as a layer that reads the units."""
        self._consumers.append((wire.units, layer_name(node)))
        if note:
            self._notes.append((wire.units, note))

    def attach(self, wire: Wire, node: fx.Node, tensor: Tensor | None, slot: Slot) -> None:
        """Make part of a tensor move with the units; ``slot.name`` is filled in here."""
        if tensor is None:
            return
        name = self._traced.names.get(id(tensor))
        if name is None:
            self.stop(wire, node, "its weight is computed, not a parameter")
        elif name in self._traced.tied:
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

    def run(self, rule_of: Callable[[fx.Node, nn.Module | None], Rule]) -> None:
        """Visit every node in order."""
        for node in self._traced.graph.nodes:
            self._wires[node] = rule_of(node, self.module(node))(self, node)
            if self.is_tensor(node):
                self._stop_lost(node)
        model = self._traced.model
        if model._forward_hooks or model._forward_pre_hooks or "forward" in vars(model):
            reason = "has forward hooks or a replaced forward, which may change anything"
            for units in range(len(self._parents)):
                self._stops.append((units, "model", reason))

    def _stop_lost(self, node: fx.Node) -> None:
        # What a rule neither passes on nor has read is not proven, whatever the rule forgot.
        result, layer = self._wires[node], layer_name(node)
        kept = {self._root(u) for u, reader in self._consumers if reader == layer}
        kept |= {self._root(result.units)} if result is not None else set()
        for source in node.all_input_nodes:
            wire = self.wire(source)
            if wire and self._root(wire.units) not in kept and not self.is_stopped(wire):
                self.stop(wire, node, "does not pass its units on")

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
