"""Examples that a data set of torch makes one by one."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset, default_collate

from flatmin._streams import seed_for
from flatmin.data._nested import apply, check_examples, digest, sha256, to_dtype
from flatmin.data.data_set import DataSet
from flatmin.data.tensor_set import TensorSet

# What numpy's old global generator takes.
_SEEDS = 2**32
_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class ExampleSet:
    """A map-style ``torch.utils.data.Dataset``, whose random choices belong to the run's seed.

    Before an example is made, the global generators of torch, numpy and Python are seeded for it,
    and are the caller's again afterwards. So a transform may draw as it likes, and an example
    depends neither on the process that makes it nor on those made before. Where a set is evaluated,
    the seed is that of its place in the data set, the same each time.

    Attributes:
        dataset: Has a length, and gives pairs of inputs and target.
        source: Where the examples come from, in words; by default the name of its class.
        collate: Puts a list of examples together as a batch, as in a ``DataLoader``.
        rows: Indices into the data set; all by default.
        device: Where the batches are put.

    Raises:
        TypeError: If the data set has no length or no entries.
        ValueError: If there is no example, or an example is another one for the same seed.

    Example:
        >>> pairs = ExampleSet([(torch.tensor([1.0, 2.0]), 0), (torch.tensor([3.0, 4.0]), 1)])
        >>> inputs, targets = pairs.batch(torch.tensor([1]), None, dtype=torch.float32)
        >>> inputs.tolist(), targets.tolist()
        ([[3.0, 4.0]], [1])
    """

    dataset: Any
    source: str = ""
    collate: Callable[[list[Any]], Any] = default_collate
    rows: Tensor | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        kind = type(self.dataset).__name__
        if isinstance(self.dataset, IterableDataset) or not (
            hasattr(self.dataset, "__len__") and hasattr(self.dataset, "__getitem__")
        ):
            raise TypeError(
                f"{kind} has no length or no entries, so its examples cannot be shuffled and found "
                "again; give a map-style data set, with __len__ and __getitem__."
            )
        if not self.source:
            object.__setattr__(self, "source", kind)
        if self.rows is None:
            object.__setattr__(self, "rows", torch.arange(len(self.dataset)))
            self._check()

    def _check(self) -> None:
        """Refuse what could not be repeated, as far as one example tells."""
        if not len(self):
            raise ValueError(f"{self.source} must hold at least one example, got none.")
        seen = []
        for _ in range(2):
            found = sha256()
            digest(found, self.batch(torch.zeros(1, dtype=torch.int64), None, dtype=torch.float64))
            seen.append(found.digest())
        if seen[0] != seen[1]:
            raise ValueError(
                f"{self.source} gives another example for the same index and seed, so a run could "
                "not be repeated; draw from the global generators of torch, numpy or Python, which "
                "are seeded for each example, and not from one of its own."
            )

    def __len__(self) -> int:
        return len(self._where)

    @property
    def _where(self) -> Tensor:
        return self.rows if self.rows is not None else torch.arange(len(self.dataset))

    def to(self, device: torch.device | str) -> ExampleSet:
        """The same set, with its batches on another device."""
        return dataclasses.replace(self, device=torch.device(device))

    def subset(self, indices: Tensor) -> ExampleSet:
        """The examples at ``indices`` (int64 of shape [M]), in that order."""
        return dataclasses.replace(self, rows=self._where[indices.cpu()])

    def fingerprint(self) -> str:
        """SHA-256 of all examples; each is made once for it."""
        found, here = sha256(), self.to("cpu")
        for start in range(0, len(self), _AT_ONCE):
            indices = torch.arange(start, min(start + _AT_ONCE, len(self)))
            digest(found, here.batch(indices, None, dtype=torch.float64))
        return str(found.hexdigest())

    def settings(self) -> dict[str, Any]:
        """None: what the data set does to its examples is its own."""
        return {}

    def choose(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Draw a seed for each example."""
        return torch.randint(2**62, (count,), generator=generator)

    def batch(
        self, indices: Tensor, choices: Tensor | None, *, dtype: torch.dtype
    ) -> tuple[Any, Tensor]:
        """Make some examples, and put them together."""
        places = self._where[indices.cpu()].tolist()
        seeds = (
            choices.tolist()
            if choices is not None
            else [seed_for("example", place) for place in places]
        )
        with _own_randomness():
            made = []
            for place, seed in zip(places, seeds, strict=True):
                _seed(seed)
                made.append(self.dataset[place])
            batch = self.collate(made)
        if not isinstance(batch, Sequence) or isinstance(batch, str) or len(batch) != 2:
            raise TypeError(
                f"An example of {self.source} must be a pair of inputs and target, got "
                f"{_described(made[0])}; wrap the data set, or give flatmin.data.ExampleSet a "
                "collate that returns such a pair of a batch."
            )
        inputs, targets = batch
        check_examples(inputs, targets, f"A batch of {self.source}")
        if len(targets) != len(places):
            raise ValueError(
                f"A batch of {len(places)} examples of {self.source} must have as many targets, "
                f"got {len(targets)}."
            )

        def ready(tensor: Tensor) -> Tensor:
            return to_dtype(tensor.detach(), dtype).to(self.device)

        return apply(ready, inputs), ready(targets)


def as_data_set(data: Any) -> DataSet:
    """Take what a user has as a data set.

    Args:
        data: A :class:`DataSet`, or a map-style data set of torch.

    Returns:
        The set itself, or one around it. A plain ``TensorDataset`` of two is held as its tensors.

    Raises:
        TypeError: If it is neither.
        ValueError: If its examples cannot be repeated.

    Example:
        >>> pairs = TensorDataset(torch.ones(4, 2), torch.zeros(4))
        >>> type(as_data_set(pairs)).__name__, len(as_data_set(pairs))
        ('TensorSet', 4)
    """
    if isinstance(data, DataSet):
        return data
    if type(data) is TensorDataset and len(data.tensors) == 2:
        return TensorSet(*data.tensors)
    if isinstance(data, torch.utils.data.Dataset):
        return ExampleSet(data)
    how = "an ImageSet, a TensorSet or a map-style torch.utils.data.Dataset"
    if isinstance(data, torch.utils.data.DataLoader):
        how = "its dataset; batches are drawn by the run's own seed"
    elif isinstance(data, Tensor | np.ndarray | tuple | list):
        how = "TensorSet(inputs, targets), of two tensors such as torch.as_tensor makes"
    raise TypeError(f"a {type(data).__name__} is no data set; give {how}.")


def _described(example: Any) -> str:
    kind = type(example).__name__
    return f"a {kind} of {len(example)}" if isinstance(example, tuple | list) else f"a {kind}"


@contextmanager
def _own_randomness() -> Iterator[None]:
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % _SEEDS)  # noqa: NPY002
