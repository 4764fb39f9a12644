"""Permutations: which units may change places, told apart by how they are used."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx

from flatmin.symmetry.groups import Group, Stop
from flatmin.symmetry.numbering import FIRST, FIXED, ZERO, differing, distinct, spread
from flatmin.symmetry.slots import Slot
from flatmin.symmetry.trace import Trace
from flatmin.symmetry.walk import Walk, named_by

_ODD = -7046029254386353131  # 2⁶⁴ over the golden ratio, as a signed number


def _mixed(numbers: Tensor) -> Tensor:
    """Spread numbers over all of 64 bits, so that sums of them hardly ever agree by chance."""
    for _ in range(2):
        numbers = (numbers + 1) * _ODD
        numbers = numbers ^ (numbers >> 29)
    return numbers


class OrderWalk(Walk):
    """What all rules of permutations build on: units that are tied, and told apart.

    Units that meet are one. Each operation that does not treat all alike adds a mark to those that
    it treats in one way; units whose marks agree in the end may change places.
    """

    kind = "permute"

    def __init__(self, traced: Trace):
        super().__init__(traced)
        self.slots: dict[str, list[tuple[int, Tensor]]] = {}
        self._parents: dict[int, int] = {}
        self._marks = torch.zeros(FIRST, dtype=torch.int64, device="cpu")
        self._events = 0

    def fresh(self, size: int, node: fx.Node, source: object = None) -> Tensor:
        """Begin units that ``node`` makes."""
        made = super().fresh(size, node, source)
        self._marks = torch.cat([self._marks, torch.zeros_like(made)])
        self.mark(made, torch.zeros_like(made))
        return made

    def mark(self, units: Tensor, sides: Tensor) -> None:
        """Tell units apart by the places, numbered in ``sides``, at which they are used."""
        self._events += 1
        event = torch.tensor(self._events, device="cpu")
        units, sides = spread(units, sides)
        marks = _mixed(_mixed(event) + sides.reshape(-1))
        self._marks.index_add_(0, units.reshape(-1), marks)

    def counted(self, units: Tensor) -> Tensor:
        """Tell units apart by how often they occur."""
        self.mark(units, torch.zeros_like(units))
        return units

    def tie(self, a: Tensor, b: Tensor, node: fx.Node, reason: str) -> Tensor:
        """Identify what meets; a unit that meets what is fixed is stopped."""
        for one, other in differing(a, b):
            if FIXED in (one, other):
                self.stop(torch.tensor(max(one, other), device="cpu"), node, reason)
            elif (child := self.root(one)) != (parent := self.root(other)):
                self._parents[child] = parent
        return torch.maximum(a, b)

    def one_for(self, units: Tensor, axes: Sequence[int], node: fx.Node) -> Tensor | None:
        """Return the units without axes along which they are the same; None if they are not."""
        common = units.amax(tuple(axes), keepdim=True) if axes else units
        alike = bool(((units == common) | (units == ZERO)).all())
        return common.clamp_min(FIXED) if alike else None

    def line(self, units: Tensor, axis: int, node: fx.Node) -> Tensor:
        """Return the units along one axis; if they vary along others, they are stopped."""
        line = self.one_for(units, [each for each in range(units.ndim) if each != axis], node)
        if line is None:
            self.stop(units, node, "reads units along another axis")
            return torch.full((units.shape[axis],), FIXED, device="cpu")
        return line.flatten()

    def is_free(self, argument: object) -> bool:
        """Tell whether an argument is a parameter or buffer that nothing has used yet."""
        name = self.name(argument)
        return name is not None and name not in self.slots

    def attach(self, argument: object, units: Tensor, power: int, node: fx.Node) -> None:
        """Let part of a tensor move with units, given in a shape that fits it."""
        name = self.name(argument)
        if argument is None:
            return
        if name is None or any(p == power for p, _ in self.slots.get(name, [])):
            self.stop(units, node, "reads a weight that is computed, or used more than once")
        else:
            self.slots.setdefault(name, []).append((power, units))

    def read(self, name: str, node: fx.Node) -> Tensor:
        """Return the units of a parameter or buffer that is used as an ordinary tensor."""
        self.fix(name, f"{name!r} is used in another way as well", node)
        return torch.tensor(FIXED, device="cpu")

    def fix(self, name: str, reason: str, node: fx.Node | None = None) -> None:
        """Keep a parameter or buffer where it is."""
        for _, units in self.slots.setdefault(name, [(0, torch.tensor(FIXED, device="cpu"))]):
            found = distinct(units)
            if len(found):
                self.stops.append((found, name if node is None else self.layer(node), reason))

    def root(self, unit: int) -> int:
        """Return the unit that stands for all that are one with it."""
        while unit in self._parents:
            unit = self._parents[unit]
        return unit

    def found(self) -> tuple[tuple[Group, ...], tuple[Stop, ...]]:
        """Put together units that nothing tells apart."""
        stopped = {self.root(unit) for units, _, _ in self.stops for unit in units.tolist()}
        marks: dict[int, int] = defaultdict(int)
        for unit in range(FIRST, len(self._marks)):
            marks[self.root(unit)] += int(self._marks[unit])
        alike: dict[int, list[int]] = defaultdict(list)
        first: dict[int, int] = {}
        for unit in range(FIRST, len(self._marks)):
            first.setdefault(self.root(unit), unit)
        for root in first:
            if root not in stopped:
                alike[marks[root] % (1 << 64)].append(root)
        groups = [self._group(roots) for roots in alike.values() if len(roots) > 1]
        return tuple(g for g in groups if g.slots), tuple(dict.fromkeys(self._stops()))

    def _group(self, roots: list[int]) -> Group:
        index = {root: number for number, root in enumerate(roots)}
        members = {u for u in range(FIRST, len(self._marks)) if self.root(u) in index}
        return Group(
            size=len(roots),
            slots=tuple(self._slots(index)),
            producers=tuple(self._makers(members)),
            consumers=tuple(named_by(self.consumers, members)),
        )

    def _slots(self, index: dict[int, int]) -> Iterator[Slot]:
        for name, parts in self.slots.items():
            for power, units in parts:
                mapped = torch.tensor(
                    [index.get(self.root(unit), -1) for unit in units.flatten().tolist()],
                    device="cpu",
                ).view(units.shape)
                if bool((mapped >= 0).any()):
                    yield Slot(name, mapped, power)

    def _makers(self, members: set[int]) -> Iterator[str]:
        yield from dict.fromkeys(
            birth.layer
            for birth in self.births
            if any(u in members for u in range(birth.first, birth.first + birth.size))
        )

    def _stops(self) -> Iterator[Stop]:
        for units, layer, reason in self.stops:
            roots = {self.root(unit) for unit in units.tolist()}
            members = {u for u in range(FIRST, len(self._marks)) if self.root(u) in roots}
            yield Stop(layer, reason, tuple(self._makers(members)))
