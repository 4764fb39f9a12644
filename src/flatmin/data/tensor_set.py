"""Examples of any kind that are held as tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flatmin.data._nested import apply, check_examples, digest, sha256, to_dtype


@dataclass(frozen=True, slots=True, eq=False)
class TensorSet:
    """A table, token sequences, or whatever fits into tensors: an example for each row.

    Attributes:
        inputs: What the network is called with: a tensor, a sequence of tensors (positional
            arguments) or a mapping of them (keyword arguments), each of shape [N, …]. Floating
            numbers take the type of the weights, integers and truth values stay.
        targets: Of shape [N, …]: classes as integers from 0, or numbers.
        source: Where the examples come from, in words that may stand under a result.

    Raises:
        TypeError: If something is no dense tensor, or targets are complex.
        ValueError: If lengths differ, or there is no example.

    Example:
        >>> table = TensorSet(torch.eye(3), torch.tensor([0, 1, 1]))
        >>> inputs, targets = table.batch(torch.tensor([2, 0]), None, dtype=torch.float64)
        >>> inputs.tolist(), targets.tolist()
        ([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], [1, 0])
    """

    inputs: Tensor | Sequence[Tensor] | Mapping[str, Tensor]
    targets: Tensor
    source: str = "tensors"

    def __post_init__(self) -> None:
        check_examples(self.inputs, self.targets, "A TensorSet")
        if not len(self.targets):
            raise ValueError("A TensorSet must hold at least one example, got none.")

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.targets.device

    def to(self, device: torch.device | str) -> TensorSet:
        """The same set on another device."""
        return dataclasses.replace(
            self,
            inputs=apply(lambda tensor: tensor.to(device), self.inputs),
            targets=self.targets.to(device),
        )

    def subset(self, indices: Tensor) -> TensorSet:
        """The examples at ``indices`` (int64 of shape [M]), in that order."""
        inputs, targets = self._rows(indices)
        return dataclasses.replace(self, inputs=inputs, targets=targets)

    def fingerprint(self) -> str:
        """SHA-256 of all numbers, their types and names."""
        found = sha256()
        digest(found, self.inputs)
        digest(found, self.targets)
        return str(found.hexdigest())

    def settings(self) -> dict[str, Any]:
        """None: the examples are trained on as they are."""
        return {}

    def choose(self, count: int, *, generator: torch.Generator) -> Tensor | None:
        """Nothing is drawn, for nothing is varied."""

    def batch(
        self, indices: Tensor, choices: Tensor | None, *, dtype: torch.dtype
    ) -> tuple[Any, Tensor]:
        """Inputs and targets of some examples, in a floating type."""
        inputs, targets = self._rows(indices)
        return apply(lambda tensor: to_dtype(tensor, dtype), inputs), to_dtype(targets, dtype)

    def _rows(self, indices: Tensor) -> tuple[Any, Tensor]:
        def rows(tensor: Tensor) -> Tensor:
            return tensor.detach().index_select(0, indices.to(tensor.device))

        return apply(rows, self.inputs), rows(self.targets)
