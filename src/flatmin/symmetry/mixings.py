"""Symmetries beyond factors: units between two linear maps, mixed by a matrix."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn

from flatmin.symmetry.confirm import Trial, confirmed, moved, trials_of
from flatmin.symmetry.find import find_scalings
from flatmin.symmetry.groups import Group, Stop, Symmetries
from flatmin.symmetry.slots import Slot
from flatmin.symmetry.symmetries import Scalings


@final
@dataclass(frozen=True, slots=True)
class Mixing(Group):
    """Units that any invertible matrix may mix, head by head.

    Args:
        heads: Number of matrices; each mixes ``size // heads`` neighboring units.

    Example:
        >>> from flatmin.symmetry import find_mixings
        >>> low_rank = nn.Sequential(nn.Linear(5, 2), nn.Linear(2, 4))
        >>> group = find_mixings(low_rank, torch.ones(1, 5)).groups[0]
        >>> group.heads, group.width
        (1, 2)
    """

    heads: int = 1

    @property
    def width(self) -> int:
        """Number of units that are mixed with each other."""
        return self.size // self.heads


@final
@dataclass(frozen=True, slots=True)
class Mixings(Symmetries):
    """Matrices M where units are made, and their inverses where they are read.

    Example:
        >>> from flatmin.symmetry import find_mixings
        >>> low_rank = nn.Sequential(nn.Linear(5, 2, bias=False), nn.Linear(2, 4))
        >>> found = find_mixings(low_rank, torch.ones(1, 5))
        >>> swap = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
        >>> after = found.apply(dict(low_rank.named_parameters()), [swap])
        >>> torch.equal(after["0.weight"], low_rank[0].weight.flip(0))
        True
    """

    def shape(self, group: Group) -> tuple[int, ...]:
        """Return the shape of a matrix for each head."""
        heads = group.heads if isinstance(group, Mixing) else group.size
        return (heads, group.size // heads, group.size // heads)

    def sample(self, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Draw a matrix for each head of a group, of singular values between 1/2 and 2."""
        device = torch.device("cpu") if generator is None else generator.device

        def normal(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=generator, device=device, dtype=torch.float64)

        found = []
        for group in self.groups:
            shape = self.shape(group)
            left, right = (torch.linalg.qr(normal(shape)).Q for _ in range(2))
            drawn = normal(shape[:2])
            found.append(left * (drawn.sign() * 2.0 ** drawn.tanh())[:, None] @ right)
        return tuple(found)

    def far(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw matrices likewise: none of them is near the identity."""
        return self.sample(generator)

    def check(self, elements: Sequence[Tensor]) -> None:
        """Raise ValueError on matrices that are not finite, or of which one has no inverse."""
        for index, element in enumerate(elements):
            sizes = torch.linalg.svdvals(element.double()) if element.isfinite().all() else element
            if not element.isfinite().all() or bool((sizes[:, -1] <= 1e-12 * sizes[:, 0]).any()):
                raise ValueError(f"the matrices of group {index} must be finite and invertible")

    def move(self, slot: Slot, tensor: Tensor, element: Tensor) -> Tensor:
        """Multiply by the matrices, or by their inverses."""
        return slot.mixed(tensor, torch.block_diag(*element.double()))  # type: ignore[no-untyped-call]

    def __str__(self) -> str:
        matrices = []
        for group in self.groups:
            heads, width, _ = self.shape(group)
            made, read = ", ".join(group.producers), ", ".join(group.consumers)
            matrices.append(f"  {heads} × {width} × {width} matrices mix {made}, undone in {read}")
        count = len(self.groups)
        return "\n".join([f"Mixings: {count} {'group' if count == 1 else 'groups'}", *matrices])

    def counted(self) -> str:
        """Say how many matrices of which size there are, as in ``24 of 64 × 64``."""
        totals: Counter[int] = Counter()
        for group in self.groups:
            heads, width, _ = self.shape(group)
            totals[width] += heads
        return ", ".join(f"{n} of {width} × {width}" for width, n in sorted(totals.items())[::-1])


def find_mixings(
    model: nn.Module, example: Any, *, opaque: Sequence[str] = (), scalings: Scalings | None = None
) -> Mixings:
    r"""Find units that may be mixed by matrices without changing the function.

    .. math:: W_2\, (W_1 x + b) = (W_2 M^{-1})\, (M W_1 x + M b)

    Where no nonlinearity lies between two linear maps, as in a factorized matrix, in values and
    outputs of a head of attention, or in its queries and keys, any invertible M is a symmetry, of
    which factors are the diagonal. ``T = |w|`` does not follow it: of a measure that is
    invariant under factors nothing is known here.

    Candidates are the groups of ``find_scalings``, mixed as a whole or in heads of equal size,
    that lie one behind the other or interleaved. Each is tried with random matrices, as
    ``find_scalings`` tries its own, and only those are returned under which every output
    stays; there may be others, such as maps with a normalization by running statistics between.

    Args:
        model: As for ``find_scalings``.
        example: As for ``find_scalings``.
        opaque: As for ``find_scalings``.
        scalings: What ``find_scalings`` has found on the same model, if it is known.

    Returns:
        The groups, with the number of heads of each, and what stopped the others.

    Raises:
        ValueError: If the model cannot be traced or run.

    Example:
        >>> x = torch.ones(1, 5)
        >>> print(find_mixings(nn.Sequential(nn.Linear(5, 2), nn.Linear(2, 4)), x))
        Mixings: 1 group
          1 × 2 × 2 matrices mix 0, undone in 1
        >>> relu = nn.Sequential(nn.Linear(5, 2), nn.ReLU(), nn.Linear(2, 4))
        >>> find_mixings(relu, x).groups
        ()

    Source:
        da Silva et al. 2025, arXiv:2505.05409, on heads of attention; Zhao et al. 2022,
        arXiv:2210.17216, on linear maps in a row.
    """
    known = find_scalings(model, example, opaque=opaque) if scalings is None else scalings
    trials = list(trials_of(model, example)) if known.groups else []
    groups: list[Mixing] = []
    stops = list(known.stopped)
    for part in (part for group in known.groups for part in _alike(group)):
        found = next((each for each in _candidates(part, trials) if _stays(each, trials)), None)
        if found is not None:
            groups.append(found)
        else:
            reason = "the outputs move when these units are mixed"
            stops.append(Stop("forward", reason, part.producers))
    return confirmed(Mixings(tuple(groups), tuple(stops)), model, example)


def _stays(group: Mixing, trials: Sequence[Trial]) -> bool:
    return moved(Mixings((group,), ()), trials) is None


def _alike(group: Group) -> Iterator[Mixing]:
    """The units of a group that occur in the same places, equally often."""
    counts = torch.stack(
        [torch.bincount(s.units[s.units >= 0], minlength=group.size) for s in group.slots]
    )
    for kind in counts.unique(dim=1).T:  # type: ignore[no-untyped-call]
        chosen = (counts == kind[:, None]).all(0)
        place = torch.where(chosen, chosen.cumsum(0) - 1, -1)
        slots = tuple(
            replace(slot, units=_renumbered(slot, place))
            for slot, count in zip(group.slots, kind, strict=True)
            if count
        )
        size = int(chosen.sum())
        yield Mixing(size, slots, group.producers, group.consumers, group.note, heads=size)


def _candidates(single: Mixing, trials: Sequence[Trial]) -> Iterator[Mixing]:
    """Ways to divide units into heads, the fewest first."""
    size = single.size
    if size < 2 or any(abs(slot.power) != 1 or slot.offset for slot in single.slots):
        return
    if not _stays(single, trials):  # a factor below zero shows every nonlinearity but odd ones
        return
    for heads in (n for n in range(1, size // 2 + 1) if size % n == 0):
        yield replace(single, heads=heads)
        if heads > 1:
            order = torch.arange(size).view(-1, heads).T.flatten().argsort()
            slots = tuple(replace(slot, units=_renumbered(slot, order)) for slot in single.slots)
            yield replace(single, heads=heads, slots=slots)


def _renumbered(slot: Slot, order: Tensor) -> Tensor:
    return torch.where(slot.units < 0, slot.units, order.to(slot.units.device)[slot.units])
