"""Permutations: which units may change places, told apart by how they are used."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor, fx

from flatmin.symmetry.entries import (
    Derived,
    Followed,
    is_injective,
    labelled,
    mixed,
    ranks,
    settled,
)
from flatmin.symmetry.groups import Group, Stop
from flatmin.symmetry.numbering import FIRST, FIXED, ZERO, differing, distinct, spread
from flatmin.symmetry.slots import Slot
from flatmin.symmetry.trace import Trace
from flatmin.symmetry.walk import Walk


class OrderWalk(Walk):
    """What all rules of permutations build on: units that are tied, and told apart.

    Units that meet are one. Each operation that does not treat all alike adds a mark to those that
    it treats in one way; units whose marks agree in the end may change places.

    A unit may have several entries in a tensor, and units that are one may meet in another order.
    So each entry that no axis tells from others has a number of its own, derived from the numbers
    that meet in it. In the end each number has a label by which it is told from others of its unit,
    and the entries of units that change places are those with equal labels.
    """

    kind = "permute"

    def __init__(self, traced: Trace):
        super().__init__(traced)
        self.slots: dict[str, list[tuple[int, Tensor]]] = {}
        self._parents = list(range(FIRST))
        self._marks = torch.zeros(FIRST, dtype=torch.int64, device="cpu")
        # The unit that each number is an entry of, and which of its entries.
        self._base = torch.arange(FIRST, device="cpu")
        self._place = torch.zeros_like(self._base)
        self._derived: list[Derived] = []
        self._events = 0

    def fresh(self, size: int, node: fx.Node, source: object = None) -> Tensor:
        """Begin units that ``node`` makes."""
        made = super().fresh(size, node, source)
        self._begin(made, made, torch.zeros_like(made))
        self.mark(made, torch.zeros_like(made))
        return made

    def _begin(self, numbers: Tensor, base: Tensor, place: Tensor) -> None:
        self._parents += numbers.tolist()
        self._base = torch.cat([self._base, base])
        self._place = torch.cat([self._place, place])
        self._marks = torch.cat([self._marks, torch.zeros_like(numbers)])

    def _event(self) -> Tensor:
        self._events += 1
        return mixed(torch.tensor(self._events, device="cpu"))

    def mark(self, units: Tensor, sides: Tensor) -> None:
        """Tell units apart by the places, numbered in ``sides``, at which they are used."""
        units, sides = spread(units, sides)
        marks = mixed(self._event() + sides.reshape(-1))
        self._marks.index_add_(0, units.reshape(-1), marks)

    def counted(self, units: Tensor) -> Tensor:
        """Tell units apart by how often they occur."""
        if units.numel():
            (common,), _ = settled([units])
            self.mark(common, torch.zeros_like(common))
        return units

    def entries(self) -> Followed:
        """Entries are followed, whatever an operation does to their order."""
        return Followed(self._base, self._place, self.derive)

    def derive(self, rows: Sequence[Tensor], places: Tensor) -> Tensor:
        """Begin a number for each entry in which units meet.

        Args:
            rows: The units, one tensor for each operand.
            places: What else tells the entries of a unit apart.
        """
        top = reduce(torch.maximum, rows)
        lives = top >= FIRST
        parts = torch.stack([row[lives] for row in rows], 1)
        first = self._next
        self._next += len(parts)
        numbers = torch.arange(first, self._next, device="cpu")
        key = mixed(places.expand(top.shape)[lives])
        roles = torch.arange(len(rows), device="cpu")
        key = mixed(key) + ranks(key + mixed(mixed(roles) + parts).sum(1))
        self._derived.append(Derived(self._event(), numbers, parts, key))
        if len(rows) == 1:
            known = mixed(mixed(self._place[parts[:, 0]]) + key)
            _, place = torch.unique(known, return_inverse=True)
            self._begin(numbers, self._base[parts[:, 0]], place + self._next)
        else:
            self._begin(numbers, numbers, torch.zeros_like(numbers))
        for child, parent in zip(numbers.tolist(), top[lives].tolist(), strict=True):
            self._parents[child] = parent
        return top.masked_scatter(lives, numbers)

    def repeated(self, units: Tensor, times: int, axis: int) -> Tensor:
        """Return units with each entry repeated along an axis."""
        if times == 1:
            return units
        many = units.repeat_interleave(times, axis)
        shape = [1] * many.ndim
        shape[axis] = many.shape[axis]
        places = torch.arange(many.shape[axis], device="cpu").view(shape)
        return self.derive([many], places % times)

    def meet(self, parts: Sequence[Tensor], node: fx.Node, reason: str) -> Tensor:
        """Identify units that meet; one that meets what is fixed is stopped."""
        parts = spread(*parts)
        total = reduce(torch.maximum, parts)
        for part in parts:
            for one, other in differing(part, total):
                if FIXED in (one, other):
                    self.stop(torch.tensor(max(one, other), device="cpu"), node, reason)
                elif (child := self.root(one)) != (parent := self.root(other)):
                    self._parents[child] = parent
        (*rows, common), _ = settled([*parts, total])
        apart = any(bool(((row >= FIRST) & (row != common)).any()) for row in rows)
        if not apart and is_injective(common):
            return total
        for role, row in enumerate(rows):
            self.mark(row, torch.full_like(row, role))
        met = self.derive(rows, torch.zeros_like(common)).expand(total.shape)
        zeros = total == ZERO
        return torch.where(zeros, ZERO, met) if bool(zeros.any()) else met

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
            self.counted(units)
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
        while unit != self._parents[unit]:
            unit = self._parents[unit]
        return unit

    def found(self) -> tuple[tuple[Group, ...], tuple[Stop, ...]]:
        """Put together units that nothing tells apart."""
        roots = torch.tensor(self._parents, device="cpu")
        while not torch.equal(roots, further := roots[roots]):
            roots = further
        labels = labelled(self._marks, roots, self._derived)
        marks = torch.zeros_like(labels).index_add_(0, roots, mixed(labels))
        stopped = torch.zeros(len(roots), dtype=torch.bool, device="cpu")
        for units, _, _ in self.stops:
            stopped[roots[units]] = True
        alike: dict[int, dict[int, None]] = defaultdict(dict)
        for root in roots[FIRST:].tolist():  # in the order of the first unit of each
            if not stopped[root]:
                alike[int(marks[root])][root] = None
        groups = [
            self._group(list(same), roots, labels) for same in alike.values() if len(same) > 1
        ]
        return tuple(g for g in groups if g.slots), tuple(dict.fromkeys(self._stops(roots)))

    def _group(self, same: list[int], roots: Tensor, labels: Tensor) -> Group:
        index = torch.full_like(roots, -1)
        index[torch.tensor(same, device="cpu")] = torch.arange(len(same), device="cpu")
        index = index[roots]
        return Group(
            size=len(same),
            slots=tuple(self._slots(index, labels)),
            producers=tuple(self._makers(index >= 0)),
            consumers=tuple(
                dict.fromkeys(n for found, n in self.consumers if bool((index[found] >= 0).any()))
            ),
        )

    def _slots(self, index: Tensor, labels: Tensor) -> Iterator[Slot]:
        for name, parts in self.slots.items():
            for power, units in parts:
                mapped = index[units]
                lives = mapped >= 0
                if bool(lives.any()):
                    several = not is_injective(mapped[lives] + FIRST)
                    turns = torch.unique(labels[units], return_inverse=True)[1] if several else None
                    yield Slot(name, mapped, power, turns=turns)

    def _makers(self, members: Tensor) -> Iterator[str]:
        yield from dict.fromkeys(
            birth.layer
            for birth in self.births
            if bool(members[birth.first : birth.first + birth.size].any())
        )

    def _stops(self, roots: Tensor) -> Iterator[Stop]:
        for units, layer, reason in self.stops:
            members = torch.zeros(len(roots), dtype=torch.bool, device="cpu")
            members[roots[units]] = True
            yield Stop(layer, reason, tuple(self._makers(members[roots])))
