"""What data draw while they are looked at: the same for the same seed, and nothing used up."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from flatmin.analysis import look
from flatmin.data import Batches, TensorSet

X, Y = torch.linspace(-1, 1, 80).reshape(40, 2), torch.arange(40) % 3
PLAIN = TensorDataset(X, Y)


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Draws from a generator of its own."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        return X[k] + torch.rand(2, generator=self.generator), Y[k]


class Wrapped:
    """A loader inside of another, as data modules are."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


def of_batches(generator: torch.Generator) -> DataLoader[Any]:
    sampler = BatchSampler(RandomSampler(PLAIN, generator=generator), 4, drop_last=False)
    return DataLoader(PLAIN, batch_sampler=sampler)


LOADERS: dict[str, Callable[[torch.Generator], Any]] = {
    "shuffled": lambda g: DataLoader(PLAIN, batch_size=4, shuffle=True, generator=g),
    "sampler": lambda g: DataLoader(
        PLAIN, 4, sampler=WeightedRandomSampler([1.0] * 40, 40, generator=g)
    ),
    "batch sampler": of_batches,
    "wrapped": lambda g: Wrapped(DataLoader(PLAIN, 4, shuffle=True, generator=g)),
    "data set": Noisy,
    "several data sets": lambda g: DataLoader(ConcatDataset([PLAIN, Noisy(g)]), 4, shuffle=True),
    "flatmin's": lambda g: Batches(TensorSet(X, Y), 4, generator=g),
}


def seen(data: Any, seed: int = 0) -> str:
    """A short text that tells which examples were measured."""
    model = nn.Linear(2, 3)
    found = look(model, data, measures=["one-step"], scalings=0, examples=8, seed=seed)
    return str(found.record["data"]["digest"])


@pytest.mark.parametrize("form", LOADERS)
def test_a_generator_of_the_data_is_seeded_and_put_back(form: str) -> None:
    own = torch.Generator().manual_seed(7)
    data = LOADERS[form](own)
    before = own.get_state()
    digests = [seen(data), seen(data), seen(data, seed=1)]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(own.get_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_in_the_middle_of_an_epoch_goes_on_as_without(workers: int) -> None:
    def epochs(looks: bool) -> list[Any]:
        own = torch.Generator().manual_seed(7)
        loader = DataLoader(
            PLAIN,
            batch_size=4,
            shuffle=True,
            generator=own,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        orders = []
        for _ in range(2):
            for x, _ in loader:
                orders.append(x.tolist())
                if looks and len(orders) == 3:
                    seen(loader)
        return orders

    assert epochs(looks=True) == epochs(looks=False)


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Draws from Python's and numpy's global generators."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        return X[k] * random.random() + float(np.random.rand()), Y[k]  # noqa: NPY002


def test_random_numbers_of_python_and_numpy_are_put_back_too() -> None:
    def drawn() -> tuple[float, float]:
        return random.random(), float(np.random.rand())  # noqa: NPY002

    def put_back() -> None:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002

    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        following = drawn()
        put_back()
        digests = [seen(Augmented()), seen(Augmented()), seen(Augmented(), seed=1)]
        assert digests[0] == digests[1] != digests[2]
        assert drawn() == following
    finally:
        put_back()
