"""Follow units through a network: who makes, reads and stops them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx

from flatmin.symmetry.entries import Entries
from flatmin.symmetry.export import SHAPE_ONLY, operation_name
from flatmin.symmetry.groups import OUTPUTS, Group, Stop
from flatmin.symmetry.laws import Law
from flatmin.symmetry.numbering import FIRST, FIXED, ZERO, distinct
from flatmin.symmetry.table import LAWS
from flatmin.symmetry.trace import Trace

Kind = Literal["scale", "permute", "flip"]

# The arguments of an operation by name.
Given = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Birth:
    """Units that one operation makes: ``size`` numbers from ``first`` on."""

    first: int
    size: int
    layer: str
    produced: bool  # from a parameter, and not of others


class Walk(ABC):
    """One pass over a traced network for one kind of symmetry.

    For each tensor that is computed, the pass keeps a tensor of unit numbers that can be broadcast
    to its shape. Operations that only move entries are run on those numbers.
    """

    kind: Kind

    def __init__(self, traced: Trace):
        self.traced = traced
        self.births: list[Birth] = []
        self.stops: list[tuple[Tensor, str, str]] = []
        self.consumers: list[tuple[Tensor, str]] = []
        self.notes: list[tuple[Tensor, str]] = []
        self._units: dict[fx.Node, Any] = {}
        self._next = FIRST

    # What rules ask.

    def units(self, argument: object) -> Tensor:
        """Return the unit of every entry, in the full shape of the argument."""
        if not isinstance(argument, fx.Node):
            return self._still(torch.tensor(argument, device="cpu"))
        name = self.traced.names.get(argument)
        value = self.traced.values[argument]
        if name is not None:
            return self.read(name, argument).expand(value.shape)
        return self._units[argument].expand(value.shape)  # type: ignore[no-any-return]

    def name(self, argument: object) -> str | None:
        """Return the name of the parameter or buffer that an argument is."""
        return self.traced.names.get(argument) if isinstance(argument, fx.Node) else None

    def shape(self, argument: object) -> tuple[int, ...]:
        """Return the shape of what a node computes, or of a number."""
        value = self.traced.values[argument] if isinstance(argument, fx.Node) else argument
        value = value[0] if isinstance(value, tuple | list) else value
        return tuple(getattr(value, "shape", ()))

    def entries(self) -> Entries:
        """Return what follows the entries of one operation that moves them."""
        return Entries()

    # What rules do.

    def fresh(self, size: int, node: fx.Node, source: object = None) -> Tensor:
        """Begin units that ``node`` makes; their numbers, of shape ``(size,)``.

        Args:
            size: How many.
            node: The operation.
            source: The parameter that they come from, after which their producer is named.
        """
        first = self._next
        self._next += size
        self.births.append(Birth(first, size, self.layer(node, source), source is not None))
        return torch.arange(first, self._next, device="cpu")

    def stop(self, units: Tensor, node: fx.Node, reason: str) -> None:
        """Withdraw units."""
        found = distinct(units)
        if len(found):
            self.stops.append((found, self.layer(node), reason))

    def consume(self, units: Tensor, node: fx.Node, source: object = None, note: str = "") -> None:
        """Name ``node``, or the layer of the parameter ``source``, as one that reads units."""
        found = distinct(units)
        self.consumers.append((found, self.layer(node, source)))
        if note:
            self.notes.append((found, note))

    def layer(self, node: fx.Node, source: object = None) -> str:
        """Return a name that a reader of the model knows: a path, or where an operation is."""
        name = self.name(source)
        if name is not None:
            return name.removesuffix(".weight")
        if node.op == "output":
            return "output"
        place = self.traced.place(node)
        return place.path if place.is_leaf else f"{place.path}: {node.name}".removeprefix(": ")

    # The pass.

    def run(self) -> None:
        """Visit every node in order."""
        for node in self.traced.nodes:
            if node.op == "output":
                for end in self.traced.outputs:
                    self.end(end, node)
            elif node.op == "call_function":
                self._units[node] = self._visited(node)
            elif node not in self.traced.names:
                self._units[node] = self._constant(node)
        for name, reason in self.traced.fixed.items():
            self.fix(name, f"{name!r} {reason}")

    def _visited(self, node: fx.Node) -> Any:
        value = self.traced.values[node]
        is_new = operation_name(node.target) in SHAPE_ONLY
        sources = [] if is_new else node.all_input_nodes
        if not any(self._carries(source) for source in sources):
            for name in filter(None, map(self.name, sources)):
                self.fix(name, f"{name!r} is read elsewhere as well", node)
            return self._constant(node)
        if operation_name(node.target) == "getitem":
            return self._units[node.args[0]][node.args[1]]  # type: ignore[index]
        given = bound(node)
        entry = LAWS.get(operation_name(node.target))
        law = entry if isinstance(entry, Law) or entry is None else entry(given)
        first = self._next
        try:
            found = self.apply(law, node, given) if law is not None else None
        except Exception:  # an operation may be used in ways that nobody has thought of
            found = None
            self.stop(torch.arange(first, self._next, device="cpu"), node, "is not followed")
        if found is None:
            name, label = operation_name(node.target), self.label(node)
            inside = "" if label == name else f" ({name})"
            return self.refused(node, f"no rule for {label}{inside} used this way")
        if isinstance(value, tuple | list) and not isinstance(found, tuple | list):
            return [found, *(torch.tensor(FIXED, device="cpu") for _ in value[1:])]
        return found

    def label(self, node: fx.Node) -> str:
        """Return what a reader would call an operation: the class of a layer, or its own name."""
        place = self.traced.place(node)
        return place.kind if place.is_leaf else operation_name(node.target)

    def _carries(self, node: fx.Node) -> bool:
        if node in self.traced.names:
            return self.traced.names[node] in self.traced.params
        units = self._units.get(node)
        parts = units if isinstance(units, tuple | list) else [units]
        return any(part is not None and bool((part >= FIRST).any()) for part in parts)

    def _constant(self, node: fx.Node) -> Any:
        value = self.traced.values[node]
        known = node not in self.traced.varying

        def units_of(part: object) -> Tensor:
            if known and isinstance(part, Tensor) and not part.is_complex():
                return self._still(part.cpu())
            return torch.tensor(FIXED, device="cpu")

        return [units_of(p) for p in value] if isinstance(value, tuple | list) else units_of(value)

    def _still(self, constant: Tensor) -> Tensor:
        # Zero stays zero, and infinity infinite if it is only scaled.
        still = constant == 0
        if self.kind == "scale" and constant.is_floating_point():
            still |= constant.isinf()
        return torch.where(still, ZERO, FIXED)

    def refused(self, node: fx.Node, reason: str) -> Any:
        """Stop everything that enters a node; what leaves it is fixed."""
        for source in node.all_input_nodes:
            self.refuse(source, node, reason)
        value = self.traced.values[node]
        fixed = torch.tensor(FIXED, device="cpu")
        return [fixed for _ in value] if isinstance(value, tuple | list) else fixed

    def refuse(self, source: object, node: fx.Node, reason: str) -> None:
        """Stop what one argument holds."""
        name = self.name(source)
        if name is not None:
            self.fix(name, reason, node)
            return
        units = self._units.get(source) if isinstance(source, fx.Node) else None
        for part in units if isinstance(units, tuple | list) else [units]:
            if part is not None:
                self.stop(part, node, reason)

    def end(self, node: fx.Node, output: fx.Node) -> None:
        """Units that leave the network may not move."""
        if isinstance(self.traced.values[node], Tensor):
            self.refuse(node, output, OUTPUTS)

    # What a kind of symmetry has to answer.

    @abstractmethod
    def apply(self, law: Law, node: fx.Node, given: Given) -> Any:
        """Return the units of what a node computes; None if nothing is known."""

    @abstractmethod
    def read(self, name: str, node: fx.Node) -> Tensor:
        """Return the units of a parameter or buffer that is used as an ordinary tensor."""

    @abstractmethod
    def fix(self, name: str, reason: str, node: fx.Node | None = None) -> None:
        """Keep a parameter or buffer where it is."""

    @abstractmethod
    def found(self) -> tuple[tuple[Group, ...], tuple[Stop, ...]]:
        """Return the groups, first made first, and what stopped others."""


def bound(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of an operation by name, with their defaults."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return dict(enumerate(node.args)) | node.kwargs  # type: ignore[return-value]
    passed = dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | node.kwargs
    given = {a.name: a.default_value for a in schema.arguments}
    return given | passed


def named_by(facts: Sequence[tuple[Tensor, str]], units: set[int]) -> Iterator[str]:
    """Yield the names that belong to any of the units, each once."""
    yield from dict.fromkeys(name for found, name in facts if not units.isdisjoint(found.tolist()))
