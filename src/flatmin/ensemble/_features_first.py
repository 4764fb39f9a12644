"""Small linear layers at the speed of the processor: features before examples.

A batch is a matrix [examples, features], and a layer of a small network has few features: too few
to fill the vector units, which work along the last dimension. With the examples last, the products
of 10 × 10 matrices with batches of 32 run about four times as fast. The numbers are the same; only
the memory is laid out the other way around.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class FeaturesFirst(TorchFunctionMode):
    """While active, linear layers leave their output in the memory layout [features, examples]."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Compute ``linear`` and ``cross_entropy`` of matrices transposed; leave the rest alone."""
        kwargs = kwargs or {}
        if func is F.linear and not kwargs and args[0].ndim == 2:
            return _linear(*args)
        if func is F.cross_entropy and len(args) == 2 and args[0].ndim == 2 and args[1].ndim == 1:
            outputs, targets = args
            if kwargs.get("reduction", "mean") != "none":
                # The same examples as the pixels of one picture, in which classes come first.
                return func(outputs.mT[None], targets[None], **kwargs)
        return func(*args, **kwargs)


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    outputs = weight @ inputs.mT
    if bias is not None:
        outputs = outputs + bias[:, None]
    return outputs.mT
