"""Units that occur more than once: each entry is followed, in whatever order it comes to lie."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin.symmetry import Permutations, find_permutations, verify
from flatmin.symmetry.entries import ranks, settled
from flatmin.symmetry.permuting import Orders
from flatmin.symmetry.slots import Slot
from flatmin.symmetry.table import KEPT
from flatmin.symmetry.trace import trace

ORDER = torch.randperm(36, generator=torch.Generator().manual_seed(3))
SHUFFLE = [0, 7, 2, 9, 4, 11, 6, 1, 8, 3, 10, 5]
DIAGONAL = torch.arange(6)


class Net(nn.Module):
    """Units along the last axis of (3, 5, 6), or the channels of (3, 6, 6); then a head."""

    def __init__(self, use: Callable[[Any, Tensor], Tensor], channels: bool) -> None:
        super().__init__()
        self.a = nn.Conv1d(2, 6, 1) if channels else nn.Linear(4, 6)
        self.depth = nn.Conv1d(6, 12, 1, groups=6)
        self.use = use
        self.example = torch.randn(3, 2, 6) if channels else torch.randn(3, 5, 4)
        self.head = nn.Linear(use(self, self.a(self.example)).shape[-1], 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.use(self, self.a(x)))


def doubled(x: Tensor) -> Tensor:
    return torch.cat([x, x.tanh()], -1)


def padded(x: Tensor) -> Tensor:
    return F.pad(x, (0, 6)) + F.pad(x.tanh(), (6, 0))


def tied(x: Tensor) -> Tensor:
    return x.roll(1, 1) + x.flip(-1)


# What is made of the units, and the sizes of the groups, by hand.
SEQUENCES: dict[str, tuple[Callable[[Any, Tensor], Tensor], list[int]]] = {
    "tied in pairs": (lambda n, x: tied(x), [3]),
    "tied in pairs, reordered": (lambda n, x: tied(x).unflatten(-1, (2, 3)).mT.flatten(2), [3]),
    "the larger of two": (
        lambda n, x: torch.where(x > x.flip(-1), x, 2 * x.flip(-1)).view(3, 5, 2, 3).mT.flatten(2),
        [3],
    ),
    # Units 0 and 2, 3 and 1: first with first, second with second.
    "differences": (lambda n, x: (x[..., [0, 3]] - x[..., [2, 1]]).relu(), [2, 2]),
    # Pairs within which each is as the other; 4 and 5 meet with one sign more than the rest.
    "two ways to meet": (
        lambda n, x: torch.cat(
            [x + x[..., [1, 0, 3, 2, 4, 5]], x - x[..., [0, 1, 2, 3, 5, 4]]], -1
        ),
        [2],
    ),
    "twice": (lambda n, x: doubled(x), [6]),
    "twice, reordered": (lambda n, x: doubled(x)[..., SHUFFLE], [6]),
    "side by side, reordered": (lambda n, x: padded(x)[..., SHUFFLE], [6]),
    "repeated": (lambda n, x: x.repeat(1, 1, 2).flip(-1), [6]),
    "normalized in heads": (lambda n, x: x.unflatten(-1, (2, 3)).softmax(-1).flatten(2), [3, 3]),
    "normalized over positions": (lambda n, x: x.softmax(1), [6]),
}
CHANNELS: dict[str, tuple[Callable[[Any, Tensor], Tensor], list[int]]] = {
    "flat": (lambda n, x: x.flatten(1), [6]),
    "flat, reordered": (lambda n, x: x.flatten(1)[:, ORDER], [6]),
    "flat and back": (lambda n, x: x.flatten(1).flip(1).view(3, 6, 6).mT, [6]),
    "flat, tied": (lambda n, x: x.flatten(1) + x.flatten(1).flip(1), [3]),
    # Each unit at a position of its own: reorder units, and they are read elsewhere.
    "diagonal": (lambda n, x: x.diagonal(0, 1, 2), []),
    "diagonal by index": (lambda n, x: x[:, DIAGONAL, DIAGONAL], []),
    "some moved in time": (
        lambda n, x: torch.cat([x[:, :3].roll(1, 2), x[:, 3:]], 1).flatten(1),
        [3, 3],
    ),
    "two filters a channel": (lambda n, x: n.depth(x).mT, [6]),
    "two filters a channel, reordered": (lambda n, x: n.depth(x).mT[..., SHUFFLE], [6]),
    "patches": (lambda n, x: x.unfold(2, 3, 1).flatten(1), [6]),
}
CASES = [(False, name) for name in SEQUENCES] + [(True, name) for name in CHANNELS]


@pytest.mark.parametrize(("channels", "name"), CASES)
def test_equations_alone_find_what_is_there_and_nothing_false(channels: bool, name: str) -> None:
    """Before anything is tried by numbers."""
    torch.manual_seed(0)
    use, sizes = (CHANNELS if channels else SEQUENCES)[name]
    model = Net(use, channels).double()
    x = model.example.double()
    walk = Orders(trace(model, x, (), KEPT))
    walk.run()
    claim = Permutations(*walk.found())
    first = [group.size for group in claim.groups if "a" in group.producers]
    assert first == sizes, str(claim)
    for seed in range(3):
        orders = claim.sample(torch.Generator().manual_seed(seed))
        assert verify(model, claim, orders, x).deviation <= 1e-10, f"{name}\n{claim}"


def test_the_order_in_which_entries_lie_is_not_enough() -> None:
    """The negative: without the turns of its entries the same claim is false."""
    torch.manual_seed(0)
    model = Net(SEQUENCES["tied in pairs, reordered"][0], False).double()
    x = model.example.double()
    found = find_permutations(model, x)
    (group,) = found.groups
    head = next(slot for slot in group.slots if slot.name == "head.weight")
    assert head.units.tolist() == [[0, 2, 1, 1, 2, 0]]
    assert head.turns is not None
    plain = tuple(Slot(s.name, s.units, s.power) for s in group.slots)
    lying = Permutations((type(group)(3, plain, group.producers, group.consumers),), ())
    orders = [torch.tensor([0, 2, 1])]
    assert verify(model, found, orders, x).deviation <= 1e-14
    assert verify(model, lying, orders, x).deviation > 1e-2


def test_entries_with_equal_turns_face_each_other() -> None:
    slot = Slot("w", torch.tensor([[0, 1, 1, 0]]), -1, turns=torch.tensor([[0, 1, 0, 1]]))
    moved = slot.reordered(torch.tensor([[10.0, 20.0, 30.0, 40.0]]), torch.tensor([1, 0]))
    assert moved.tolist() == [[30.0, 40.0, 10.0, 20.0]]


def test_ranks_and_axes_by_hand() -> None:
    assert ranks(torch.tensor([5, -3, 5, 5, -3])).tolist() == [0, 0, 1, 2, 1]
    (one,), alike = settled([torch.tensor([[2, 2, 0], [3, 3, 3]])])
    assert (one.tolist(), alike) == ([[2], [3]], [1])
    # On a diagonal a unit is the same along either axis, and not along both.
    (one,), alike = settled([torch.diag(torch.tensor([2, 3]))])
    assert (one.tolist(), alike) == ([[2, 3]], [0])
