"""Types shared by every layer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

Params = Mapping[str, Tensor]
"""A point in parameter space: names to floating tensors of any shape."""

Batch = tuple[Tensor, Tensor]
"""Inputs and targets, one example a row."""
