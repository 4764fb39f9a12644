"""Which entry of a unit each entry is, followed through what copies, cuts and reorders them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flatmin.symmetry.numbering import FIRST, ZERO, numbered, spread

_ODD = -7046029254386353131  # 2⁶⁴ over the golden ratio, as a signed number
_EXACT = 2**53  # whole numbers up to here are exact in float64


def mixed(numbers: Tensor) -> Tensor:
    """Spread numbers over all of 64 bits, so that sums of them hardly ever agree by chance."""
    for _ in range(2):
        numbers = (numbers + 1) * _ODD
        numbers = numbers ^ (numbers >> 29)
    return numbers


def ranks(keys: Tensor) -> Tensor:
    """Return how many equal keys stand before each."""
    order = keys.argsort(stable=True)
    places = torch.arange(len(keys), device="cpu")
    begins = torch.ones(len(keys), dtype=torch.bool, device="cpu")
    begins[1:] = keys[order][1:] != keys[order][:-1]
    found = torch.empty_like(places)
    found[order] = places - torch.where(begins, places, 0).cummax(0).values
    return found


def settled(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
    """Return units without the axes along which none of the tensors changes, and those axes.

    Zeros go along with any unit.
    """
    whole = spread(*tensors)
    alike = []
    for axis in range(whole[0].ndim):
        tops = [
            t.amax(axis, keepdim=True) if t.stride(axis) else t.narrow(axis, 0, 1) for t in whole
        ]
        pairs = zip(whole, tops, strict=True)
        if all(not t.stride(axis) or bool(((t == top) | (t == ZERO)).all()) for t, top in pairs):
            whole = tops
            alike.append(axis)
    return whole, alike


def is_injective(units: Tensor) -> bool:
    """Tell whether no unit occurs twice."""
    found = units[units >= FIRST]
    return len(numbered(found, places=False)[0]) == len(found)


class Entries:
    """Entries that an operation moves, of which only the units matter."""

    def enter(self, units: Tensor) -> Tensor:
        """Return numbers to be moved in place of an operand, in float64."""
        return units.double().contiguous()

    def leave(self, moved: Tensor) -> Tensor:
        """Return the units of what such numbers became."""
        return moved.long()


class Followed(Entries):
    """Entries of the operands of one operation that moves them, each with a number of its own.

    Along an axis where units do not change, entries are the same for all units. A number holds the
    unit and where along such axes an entry lies, so that the operation itself tells where it goes.

    Args:
        base: The unit, of which each number is an entry.
        place: Which of its entries it is.
        derive: Begins a number for each entry, given the units and where their entries lie.
    """

    def __init__(
        self, base: Tensor, place: Tensor, derive: Callable[[Sequence[Tensor], Tensor], Tensor]
    ) -> None:
        self._base, self._place, self._derive = base, place, derive
        self._begun = 0

    def enter(self, units: Tensor) -> Tensor:
        """Return the numbers of an operand, in float64."""
        if not bool((units >= FIRST).any()):
            return units.double().contiguous()
        (common,), alike = settled([units])
        sizes = [n if axis in alike else 1 for axis, n in enumerate(units.shape)]
        known, places = numbered(self._place[common])
        along = torch.arange(math.prod(sizes), device="cpu").view(sizes)
        labels = self._begun + places * along.numel() + along
        self._begun += len(known) * along.numel()
        if self._begun * len(self._base) >= _EXACT:
            raise OverflowError("more entries than float64 can number")
        codes = self._base[common] + len(self._base) * labels
        return torch.where(units >= FIRST, codes, units).double().contiguous()

    def leave(self, moved: Tensor) -> Tensor:
        """Return the units of a result; entries that no axis tells apart begin numbers."""
        codes = moved.long()
        units, labels = codes % len(self._base), codes // len(self._base)
        if not bool((units >= FIRST).any()):
            return units
        (common,), alike = settled([units])
        along = [axis for axis in range(units.ndim) if axis not in alike]
        lives = common >= FIRST
        labels = torch.where(units == ZERO, -1, labels)  # where zeros lie tells apart as well
        line = torch.where(lives, labels, -2)
        top = line.amax(along, keepdim=True) if along else line
        if bool(((line == top) | ~lives).all()) and is_injective(common):
            return units
        sizes = [n if axis in alike else 1 for axis, n in enumerate(units.shape)]
        rest = mixed(torch.arange(math.prod(sizes), device="cpu").view(sizes))
        marks = mixed(rest + labels)
        marks = marks.sum(alike, keepdim=True) if alike else marks
        return torch.where(units == ZERO, ZERO, self._derive([common], marks))


@dataclass(frozen=True, slots=True)
class Derived:
    """Numbers of entries in which others meet.

    Args:
        event: The operation, as a number.
        numbers: Of the entries, of shape ``(entries,)``.
        parts: The numbers that meet in each, of shape ``(entries, operands)``.
        key: What else tells entries of a unit apart.
    """

    event: Tensor
    numbers: Tensor
    parts: Tensor
    key: Tensor


def labelled(marks: Tensor, roots: Tensor, derived: Sequence[Derived]) -> Tensor:
    """Return a label for each number, by which it is told from others of its unit.

    Args:
        marks: How each number is used.
        roots: The unit of each number.
        derived: In the order in which they were made.
    """
    marks = marks.clone()
    for each in reversed(derived):
        for role, part in enumerate(each.parts.T):
            used = mixed(marks[each.numbers] + each.event + role)
            marks.index_add_(0, part, mixed(used + each.key))
    # Where marks agree any order will do: if it does not fit what meets, labels will differ.
    labels = mixed(marks) + ranks(mixed(roots) + marks)
    for each in derived:
        roles = mixed(torch.arange(each.parts.shape[1], device="cpu"))
        met = mixed(roles + labels[each.parts]).sum(1)
        labels[each.numbers] = mixed(mixed(met + each.event) + each.key) + mixed(
            marks[each.numbers]
        )
    return labels
