"""What training asks of its data, whatever they are."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class DataSet(Protocol):
    """Examples that are trained or evaluated on: inputs of a network, and a target for each.

    :class:`~flatmin.data.ImageSet`, :class:`~flatmin.data.TensorSet` and
    :class:`~flatmin.data.ExampleSet` are such; another class with these members is one too.
    Nothing in it may depend on who asks: the same indices and choices give the same batch, on every
    process and in every order, for on that rests that a run can be continued with the same bits.
    """

    @property
    def source(self) -> str:
        """Where the examples come from, in words that may stand under a result."""

    @property
    def device(self) -> torch.device:
        """Where the batches live."""

    def __len__(self) -> int:
        """Number of examples."""

    def to(self, device: torch.device | str) -> DataSet:
        """The same set on another device."""

    def subset(self, indices: Tensor) -> DataSet:
        """The examples at ``indices`` (int64 of shape [M]), in that order."""

    def fingerprint(self) -> str:
        """A text that is another one for other examples."""

    def settings(self) -> dict[str, Any]:
        """How examples are varied in training, as plain values that a log can hold."""

    def choose(self, count: int, *, generator: torch.Generator) -> Tensor | None:
        """Draw how each of ``count`` examples is varied, one row each; None to leave them."""

    def batch(
        self, indices: Tensor, choices: Tensor | None, *, dtype: torch.dtype
    ) -> tuple[Any, Tensor]:
        """Inputs and targets of some examples, in a floating type, on the device of the set.

        Inputs are a tensor, a sequence of them (positional arguments of the network) or a mapping
        (keyword arguments). The first dimension is the example.

        Args:
            indices: Which examples, int64 of shape [B].
            choices: Their rows of what ``choose`` drew; None to leave them as they are.
            dtype: Floating type of all that is no integer.
        """
