"""Where a maximum lies goes with its unit, and decides what is looked up."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_parts import Lin, Net

from flatmin.symmetry import find_flips, find_permutations, find_scalings, verify
from flatmin.symmetry.permuting import Orders
from flatmin.symmetry.solution import Factors
from flatmin.symmetry.symmetries import Flips, Permutations, Scalings
from flatmin.symmetry.table import KEPT
from flatmin.symmetry.trace import trace
from slowly import slow_but


def place(h: Tensor) -> Tensor:
    return h.max(1).indices.to(h) @ torch.arange(1.0, 7.0).to(h)


# What is made of the units of a layer, of shape (batch, length, 6), and of the input.
USES: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "place of the maximum": lambda n, h, x: n.b(h.max(1).values) + place(h)[:, None],
    "place of the median": lambda n, h, x: (
        n.b(h.mean(1)) + h.median(1).indices.to(h) @ torch.arange(6.0).to(h)[:, None]
    ),
    "place in a pool": lambda n, h, x: n.b(
        F.max_pool1d(h.mT, 3, 1, 1, return_indices=True)[1].to(h).mean(2) * torch.arange(6.0).to(h)
    ),
    "gathered elsewhere": lambda n, h, x: n.b(h.gather(1, n.c(x).argmax(1, keepdim=True))[:, 0]),
    "gathered by the input": lambda n, h, x: n.b(
        h.gather(1, torch.cat([x, x[..., :2]], -1).argsort(1)[:, :1])[:, 0]
    ),
    "gathered by a constant": lambda n, h, x: n.b(
        h.gather(1, torch.tensor([[[0, 1, 2, 3, 4, 0]]]).expand(3, 1, 6))[:, 0]
    ),
    "gathered alike": lambda n, h, x: n.b(
        h.gather(1, x[..., :1].argsort(1)[:, :2].expand(3, 2, 6)).sum(1)
    ),
    "gathered in itself": lambda n, h, x: n.b(h.gather(1, h.argmax(1, keepdim=True))[:, 0]),
    "looked up": lambda n, h, x: n.b(n.table(h.argmax(1))[:, 0]),
    "sorted": lambda n, h, x: n.b(h.sort(1).values[:, 0]),
    "sorted, by place": lambda n, h, x: n.b(
        h.sort(1).indices[:, 0].to(h) * torch.arange(6.0).to(h)
    ),
    "sorted across units": lambda n, h, x: n.b(h.sort(-1).values.mean(1)),
    "largest two": lambda n, h, x: n.b(h.topk(2, 1).values.sum(1)),
    "second smallest": lambda n, h, x: n.b(h.kthvalue(2, 1).values),
}
KINDS: list[tuple[type[Any], Callable[[Any], Any]]] = [
    (Scalings, lambda traced: Factors("scale", traced)),
    (Permutations, Orders),
    (Flips, lambda traced: Factors("flip", traced)),
]


def network(use: Callable[[Any, Tensor, Tensor], Tensor]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    parts = {"a": Lin(4, 6), "c": Lin(4, 6), "b": Lin(6, 2), "table": nn.Embedding(5, 6)}
    model = Net(lambda n, x: use(n, n.a(x), x), **parts).double().eval()
    return model, torch.randn(3, 5, 4, dtype=torch.float64)


@pytest.mark.parametrize(
    "name", slow_but(USES, "sorted", "sorted across units", "largest two", "gathered elsewhere")
)
def test_equations_alone_claim_nothing_false(name: str) -> None:
    """Before anything is tried by numbers."""
    model, x = network(USES[name])
    traced = trace(model, x, (), KEPT)
    for kind, make in KINDS:
        walk = make(traced)
        walk.run()
        claim = kind(*walk.found())
        for seed in range(5):
            elements = claim.sample(torch.Generator().manual_seed(seed))
            assert verify(model, claim, elements, x).deviation <= 1e-10, f"{name}\n{claim}"


@pytest.mark.parametrize(
    ("name", "scalings", "permutations", "flips"),
    [
        ("sorted", [6], [6], []),
        ("sorted across units", [1], [], []),
        ("largest two", [6], [6], []),
        ("second smallest", [6], [6], []),
        ("looked up", [6, 6], [6], [6]),
        pytest.param("gathered alike", [6], [6], [6], marks=pytest.mark.slow),
    ],
)
def test_what_may_be_done_around_them(
    name: str, scalings: list[int], permutations: list[int], flips: list[int]
) -> None:
    """By hand: order statistics of a unit over positions are homogeneous in that unit."""
    model, x = network(USES[name])
    for find, sizes in (
        (find_scalings, scalings),
        (find_permutations, permutations),
        (find_flips, flips),
    ):
        found: Any = find(model, x)
        assert [group.size for group in found.groups] == sizes, str(found)
