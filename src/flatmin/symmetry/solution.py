"""What a walk over factors has found: groups of free units, and what stopped the others."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from flatmin.symmetry.exponents import Exponents, Number
from flatmin.symmetry.factor_layers import bilinear, convolution, linear, lookup, matmul
from flatmin.symmetry.factor_norms import batch_norm, normalize
from flatmin.symmetry.factor_rules import (
    attention,
    compare,
    join,
    picks,
    pointwise,
    pool,
    product,
    reduce,
    slopes,
    unchanged,
)
from flatmin.symmetry.factors import FactorWalk, Form, Kept
from flatmin.symmetry.groups import Group, Stop
from flatmin.symmetry.laws import (
    Attention,
    BatchNorm,
    Bilinear,
    Compare,
    Convolution,
    Dropout,
    Join,
    Law,
    Linear,
    Lookup,
    Matmul,
    Move,
    Normalize,
    Pick,
    Pointwise,
    Pool,
    Product,
    Reduce,
    Slopes,
    Softmax,
)
from flatmin.symmetry.moves import move
from flatmin.symmetry.numbering import FIXED, ZERO, distinct, numbered
from flatmin.symmetry.slots import Slot
from flatmin.symmetry.trace import Trace
from flatmin.symmetry.walk import Given, Kind, named_by

RULES: dict[type[Law], Callable[..., Any]] = {
    Move: move,
    Pick: picks,
    Lookup: lookup,
    Pointwise: pointwise,
    Softmax: lambda walk, law, node, given: pointwise(walk, Pointwise(), node, given),
    Join: join,
    Compare: compare,
    Product: product,
    Reduce: reduce,
    Pool: pool,
    Linear: linear,
    Bilinear: bilinear,
    Matmul: matmul,
    Convolution: convolution,
    Attention: attention,
    BatchNorm: batch_norm,
    Normalize: normalize,
    Slopes: slopes,
    Dropout: unchanged,
}


class Factors(FactorWalk):
    """A walk over positive factors (``kind`` is scale), or over signs (flip)."""

    def __init__(self, kind: Kind, traced: Trace):
        super().__init__(traced, 2 if kind == "flip" else 0)
        self.kind = kind
        self._met: set[int] = set()

    def apply(self, law: Law, node: fx.Node, given: Given) -> object:
        """Apply the rule of a law."""
        found = RULES[type(law)](self, law, node, given)
        if not isinstance(law, Move | Pick | Lookup):  # these may leave entries behind
            for units in self._entering(node):
                self._met.update(distinct(units).tolist())
        return found

    def _entering(self, node: fx.Node) -> Iterator[Tensor]:
        """The units of all that an operation computes with."""
        for source in node.all_input_nodes:
            if (name := self.name(source)) is not None:
                yield from (units for _, units in self.forms.get(name, ()))
            elif (units := self._units.get(source)) is not None:
                yield from units if isinstance(units, tuple | list) else [units]

    def found(self) -> tuple[tuple[Group, ...], tuple[Stop, ...]]:
        """Solve the equations."""
        solved = self.system.copy()
        self._ask(solved, self.kept)
        self._ask(solved, self._tables(solved))
        place = dict(_places(self, solved, self._read(solved)))
        slots: dict[int, list[Slot]] = defaultdict(list)
        for name, form in self.forms.items():
            for birth, slot in _slots(name, form, self.offsets.get(name, 0.0), solved, place):
                slots[birth].append(slot)
        return tuple(self._groups(solved, place, slots)), tuple(self._stops(solved))

    def _ask(self, solved: Exponents, kept: Sequence[Kept]) -> None:
        for rows, _, _ in kept:
            for row in rows:
                solved.add(row)

    def _read(self, solved: Exponents) -> set[int]:
        """Free units that were computed with."""
        return {free for unit in self._met for free in solved.value(unit)}

    def _tables(self, solved: Exponents) -> Sequence[Kept]:
        """Let the rows of a table that are left behind follow: a longer input may read them."""
        before, read = len(self.kept), self._read(solved)
        for name, form in self.forms.items():
            for _, units in form:
                known = [u for u in distinct(units).tolist() if solved.value(u).keys() <= read]
                met = torch.isin(units, torch.tensor([ZERO, FIXED, *known], device="cpu"))
                for axis in range(units.ndim):
                    lines = met.movedim(axis, 0).reshape(units.shape[axis], -1).any(1)
                    if bool(lines.any()) and not bool(lines.all()):
                        one = units.narrow(axis, int(lines.int().argmax()), 1)
                        reason = "other inputs may read more of it than the example does"
                        self.keep([(1, units), (-1, one)], name, reason)
        return self.kept[before:]

    def _groups(
        self, solved: Exponents, place: dict[int, tuple[int, int]], slots: dict[int, list[Slot]]
    ) -> Iterator[Group]:
        members: dict[int, set[int]] = defaultdict(set)
        makers: dict[int, dict[str, None]] = defaultdict(dict)
        for birth in self.births:
            for unit in range(birth.first, birth.first + birth.size):
                for free in solved.value(unit).keys() & place.keys():
                    members[place[free][0]].add(unit)
                    if birth.produced:
                        makers[place[free][0]][birth.layer] = None
        for number in sorted(slots):
            units = members[number]
            yield Group(
                size=sum(owner == number for owner, _ in place.values()),
                slots=tuple(slots[number]),
                producers=tuple(makers[number]),
                consumers=tuple(named_by(self.consumers, units)),
                note="; ".join(named_by(self.notes, units)),
            )

    def _stops(self, solved: Exponents) -> Iterator[Stop]:
        # Who made the units that came to a stop, by what they were tied to before.
        makers: dict[int, dict[str, None]] = defaultdict(dict)
        for birth in self.births:
            for unit in range(birth.first, birth.first + birth.size) if birth.produced else ():
                if not solved.value(unit):
                    for free in self.system.value(unit):
                        makers[free][birth.layer] = None
        found: dict[Stop, None] = {}
        lost = [
            birth.layer
            for birth in self.births
            if birth.produced
            and any(not self.system.value(birth.first + i) for i in range(birth.size))
        ]
        if lost:
            reason = "the ways in which these units are used leave them no factor"
            found[Stop("forward", reason, tuple(dict.fromkeys(lost)))] = None
        for rows, layer, reason in self.kept:
            touched = {free for row in rows for unit in row for free in self.system.value(unit)}
            names = {name: None for free in sorted(touched) for name in makers[free]}
            if names:
                found[Stop(layer, reason, tuple(names))] = None
        yield from found


def _places(
    walk: FactorWalk, solved: Exponents, read: set[int]
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Every free unit that is read, with its group and its number in it."""
    used = read & {
        free
        for form in walk.forms.values()
        for _, units in form
        for unit in distinct(units).tolist()
        for free in solved.value(unit)
    }
    for number, birth in enumerate(walk.births):
        inside = [u for u in range(birth.first, birth.first + birth.size) if u in used]
        yield from ((unit, (number, index)) for index, unit in enumerate(inside))


def _slots(
    name: str,
    form: Form,
    offset: float,
    solved: Exponents,
    place: dict[int, tuple[int, int]],
) -> Iterator[tuple[int, Slot]]:
    for count, units in form:
        numbers, inverse = numbered(units)
        parts: dict[tuple[int, Number, int], Tensor] = {}
        for row, unit in enumerate(numbers.tolist()):
            seen: dict[tuple[int, Number], int] = defaultdict(int)
            for free, times in (solved.value(unit) if unit > 1 else {}).items():
                if free not in place:
                    continue
                group, index = place[free]
                power = solved.reduced(count * times)
                if not power:
                    continue
                key = (group, power)
                part = (*key, seen[key])
                seen[key] += 1
                if part not in parts:
                    parts[part] = torch.full((len(numbers),), -1, device="cpu")
                parts[part][row] = index
        for (group, power, _), table in parts.items():
            exponent = int(power) if power == int(power) else float(power)
            yield group, Slot(name, table[inverse].view(units.shape), exponent, offset)
