"""Arithmetic with tensors of unit numbers: looked up in a table, and the same as torch's own."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from flatmin.symmetry.exponents import Exponents
from flatmin.symmetry.numbering import FIRST, distinct, numbered

TENSORS = {
    "small numbers": torch.arange(60).view(3, 4, 5) % 7,
    "large numbers": torch.tensor([[10**9, 3], [10**9, 10**6]]),
    "one number": torch.tensor(5),
    "expanded": torch.tensor([3, 0, 9])[:, None].expand(3, 1000),
    "expanded from one": torch.tensor(1).expand(4, 5),
    "none": torch.zeros(2, 0, dtype=torch.int64),
}


@pytest.mark.parametrize("name", TENSORS)
def test_numbers_are_those_of_torch(name: str) -> None:
    tensor: Tensor = TENSORS[name]
    values, places = torch.unique(tensor, return_inverse=True)
    found = numbered(tensor)
    assert torch.equal(found[0], values)
    assert torch.equal(found[1], places)
    assert torch.equal(distinct(tensor), values[values >= FIRST])


@pytest.mark.parametrize("modulus", [0, 2])
def test_a_unit_that_is_defined_is_one_that_is_asked_to_be_equal(modulus: int) -> None:
    one, other = Exponents(modulus), Exponents(modulus)
    for system in (one, other):
        system.add({2: 1, 3: -3})
    one.define(9, {3: 2, 2: 1, 4: -1})
    other.add({9: -1, 3: 2, 2: 1, 4: -1})
    # τ₃ = τ₂^(1/3), and for signs τ₃ = τ₂.
    by_hand = {2: 1, 4: 1} if modulus else {2: Fraction(5, 3), 4: -1}
    assert one.value(9) == other.value(9) == by_hand
