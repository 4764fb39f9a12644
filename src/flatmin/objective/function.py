"""What a measure needs of a loss, and any function of named tensors as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from flatmin._types import Params
from flatmin.objective import _derivatives as derivatives
from flatmin.objective._conditions import measuring


class Objective(Protocol):
    """What a measure needs: the loss at any point, with its derivatives.

    Implementations give the same loss for the same point, every time.
    """

    def value(self, params: Params) -> Tensor:
        """Loss at a point, a scalar."""

    def value_and_grad(self, params: Params) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss at a point and its gradient there."""

    def hvp(self, params: Params, vector: Params) -> dict[str, Tensor]:
        """Hessian at a point times a vector."""


@dataclass(frozen=True, slots=True)
class FunctionObjective:
    """A function of named tensors as an objective.

    It is always evaluated as for a derivative, so that a function that looks whether gradients are
    wanted gives one loss; autocast and TF32 are off inside, and the random state stays.

    Args:
        function: Takes the parameters and returns a scalar; differentiable twice by autograd.

    Example:
        >>> parabola = FunctionObjective(lambda w: 2 * w["x"].square().sum())
        >>> loss, grad = parabola.value_and_grad({"x": torch.ones(1)})
        >>> loss.item(), grad["x"].item(), parabola.hvp(grad, {"x": torch.ones(1)})["x"].item()
        (2.0, 4.0, 4.0)
    """

    function: Callable[[Params], Tensor]

    def value(self, params: Params) -> Tensor:
        """Loss at ``params``."""
        with _evaluating(params):
            return self.function(derivatives.leaves(params)).detach()

    def value_and_grad(self, params: Params) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss at ``params`` and its gradient."""
        with _evaluating(params):
            point = derivatives.leaves(params)
            loss = self.function(point)
            return loss.detach(), derivatives.gradient(loss, point)

    def hvp(self, params: Params, vector: Params) -> dict[str, Tensor]:
        """Hessian at ``params`` times ``vector``."""
        # The fused kernels of attention cannot be differentiated twice.
        with _evaluating(params), sdpa_kernel(SDPBackend.MATH):
            point = derivatives.leaves(params)
            return derivatives.second(self.function(point), point, vector)


@contextmanager
def _evaluating(params: Params) -> Iterator[None]:
    with measuring({t.device for t in params.values() if t.is_cuda}), torch.enable_grad():
        yield
