"""Tensors and map-style data sets: their batches, and what is refused of them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from flatmin.data import Augment, Batches, DataSet, ExampleSet, ImageSet, TensorSet, as_data_set

NAMED = {"tokens": torch.arange(12).view(6, 2), "length": torch.arange(6)}
ROW = torch.tensor([5, 0, 3])


class Noisy(Dataset[Any]):
    """Draws from all three global generators for each example."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = [torch.rand(()).item(), random.random(), np.random.rand()]  # noqa: NPY002
        return torch.tensor([float(index), *noise]), index % 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_all_kinds_are_data_sets() -> None:
    image = ImageSet(
        torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([0]), ("a",), "m", (0.5,), (1.0,)
    )
    for one in (image, TensorSet(NAMED, ROW.repeat(2)), ExampleSet(Noisy())):
        assert isinstance(one, DataSet)
        assert as_data_set(one) is one
    assert isinstance(as_data_set(Noisy()), ExampleSet)
    assert isinstance(as_data_set(TensorDataset(torch.eye(2), torch.ones(2))), TensorSet)


@pytest.mark.parametrize("inputs", [torch.eye(6), (torch.eye(6), torch.arange(6)), NAMED])
def test_rows_of_every_arrangement(inputs: Any) -> None:
    table = TensorSet(inputs, torch.arange(6.0))
    taken, targets = table.batch(ROW, None, dtype=torch.float64)
    again, _ = table.subset(ROW).batch(torch.arange(3), None, dtype=torch.float64)
    assert targets.dtype == torch.float64
    assert targets.tolist() == [5, 0, 3]
    pairs = (
        [(inputs, taken, again)]
        if isinstance(inputs, Tensor)
        else [(inputs[k], taken[k], again[k]) for k in (inputs if inputs is NAMED else (0, 1))]
    )
    for whole, part, other in pairs:
        expected = whole[ROW].double() if whole.is_floating_point() else whole[ROW]
        assert torch.equal(part, expected)
        assert torch.equal(other, expected)
        assert part.dtype == expected.dtype


def test_a_fingerprint_is_of_numbers_types_and_names() -> None:
    base = TensorSet(NAMED, torch.arange(6))
    others = [
        TensorSet({**NAMED, "length": torch.arange(6) + 1}, torch.arange(6)),
        TensorSet({"tokens": NAMED["tokens"], "lengths": NAMED["length"]}, torch.arange(6)),
        TensorSet(NAMED, torch.arange(6).int()),
        TensorSet(NAMED, torch.arange(6).flip(0)),
        base.subset(ROW),
    ]
    assert base.fingerprint() == TensorSet(NAMED, torch.arange(6), "elsewhere").fingerprint()
    assert len({base.fingerprint(), *(other.fingerprint() for other in others)}) == 6
    half = TensorSet(torch.ones(2, 2, dtype=torch.bfloat16), torch.tensor([True, False]))
    assert len(half.fingerprint()) == 64


def test_an_example_depends_on_its_seed_alone() -> None:
    """Whoever makes it, and whatever was made before; the caller's generators go on."""
    made = ExampleSet(Noisy())
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = [torch.rand(()).item(), random.random(), np.random.rand()]  # noqa: NPY002
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    choices = made.choose(6, generator=seeded())
    whole, _ = made.batch(torch.arange(6), choices, dtype=torch.float64)
    part, _ = made.subset(ROW).batch(torch.tensor([2]), choices[3:4], dtype=torch.float64)
    assert torch.equal(whole[3:4], part)
    other, _ = made.batch(torch.arange(6), choices + 1, dtype=torch.float64)
    assert not torch.equal(whole, other)
    assert [torch.rand(()).item(), random.random(), np.random.rand()] == expected  # noqa: NPY002


def test_an_epoch_is_entered_in_its_middle_with_the_same_bits() -> None:
    for data in (ExampleSet(Noisy()), TensorSet(NAMED, torch.arange(6))):
        whole = list(Batches(data, 2, generator=seeded(), augment=True))
        rest = list(Batches(data, 2, generator=seeded(), augment=True).epoch(start=2))
        for (x, y), (u, v) in zip(whole[2:], rest, strict=True):
            assert str(x) == str(u)
            assert torch.equal(y, v)
    still = [str(list(Batches(ExampleSet(Noisy()), 6, shuffle=False))) for _ in range(2)]
    assert still[0] == still[1]


class Own(Noisy):
    """Draws from a generator that nobody can set."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor(self.generator.random()), 0


class Endless(IterableDataset[Any]):
    """Has no entries."""

    def __iter__(self) -> Any:
        return iter([])


class Named(Noisy):
    """Gives what is no pair."""

    def __getitem__(self, index: int) -> Any:
        return {"x": torch.ones(2), "y": 1, "z": 2}


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: TensorSet(torch.eye(3), torch.ones(2)), ValueError, r"inputs of shape \[3, 3\]"),
        (lambda: TensorSet({}, torch.ones(2)), ValueError, "must have an input"),
        (lambda: TensorSet(torch.ones(0, 2), torch.ones(0)), ValueError, "at least one"),
        (lambda: TensorSet(np.eye(2), torch.ones(2)), TypeError, "got ndarray as inputs"),
        (lambda: TensorSet([torch.eye(2), None], torch.ones(2)), TypeError, r"inputs\[1\]"),
        (lambda: TensorSet(torch.eye(2), torch.ones(2).cfloat()), TypeError, "real targets"),
        (lambda: ExampleSet(Own()), ValueError, "another example for the same index and seed"),
        (lambda: ExampleSet(Endless()), TypeError, "no length or no entries"),
        (lambda: ExampleSet(Named()), TypeError, "a pair of inputs and target, got a dict"),
        (lambda: ExampleSet([]), ValueError, "at least one"),
        (lambda: as_data_set((torch.eye(2), torch.ones(2))), TypeError, "a tuple is no data set"),
        (
            lambda: Batches(ExampleSet(Noisy()), 2, generator=seeded(), augment=Augment()),
            TypeError,
            "Crops and flips are for images",
        ),
    ],
)
def test_what_is_no_data_is_one_sentence(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
