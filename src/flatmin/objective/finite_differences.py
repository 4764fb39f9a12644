"""Hessian products by differences of gradients, where an operation has no second derivative."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin._given import check_objective
from flatmin._types import Params
from flatmin.objective.function import Objective


@dataclass(frozen=True, slots=True)
class FiniteDifferences:
    r"""A loss whose Hessian products are central differences of its gradients.

    .. math:: H v \approx \frac{\nabla L(w + h v) - \nabla L(w - h v)}{2 h}, \quad
        h = s\, \|w\|_2 / \|v\|_2

    For networks with an operation that torch cannot differentiate twice: ``nn.EmbeddingBag``,
    fused kernels, a function of one's own. Two gradients a product. Its relative error is about
    s² from the curve and the rounding of a gradient over s: 1e-9 in float64, 1e-3 in float32,
    where eigenvalues below that part of the largest are noise. Kinks, as those of ReLU, that lie
    between the two points are a part of it.

    Args:
        objective: The loss; its value and gradient are used.
        step: The relative step s; by default the cube root of the rounding of ``params``.

    Raises:
        ValueError: If ``step`` is not positive and finite.

    Example:
        The gradient of x³ is 3 x², and its second derivative at x = 2 is 12.

        >>> from flatmin import FunctionObjective
        >>> cube = FunctionObjective(lambda w: (w["x"] ** 3).sum())
        >>> x, one = {"x": torch.tensor([2.0]).double()}, {"x": torch.ones(1).double()}
        >>> round(FiniteDifferences(cube).hvp(x, one)["x"].item(), 6)
        12.0

    Source:
        Pearlmutter 1994, doi:10.1162/neco.1994.6.1.147, on differences and what replaces them.
    """

    objective: Objective
    step: float | None = None

    def __post_init__(self) -> None:
        check_objective(self.objective)
        if self.step is not None and not 0.0 < self.step < math.inf:
            raise ValueError(f"step must be above 0 and finite, got {self.step}.")

    @property
    def dtype(self) -> torch.dtype | None:
        """That of the loss, where it is known."""
        return getattr(self.objective, "dtype", None)

    def value(self, params: Params) -> Tensor:
        """Loss at ``params``."""
        return self.objective.value(params)

    def value_and_grad(self, params: Params) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss at ``params`` and its gradient."""
        return self.objective.value_and_grad(params)

    def hvp(self, params: Params, vector: Params) -> dict[str, Tensor]:
        """Hessian at ``params`` times ``vector``, approximately."""
        length = _norm(vector)
        if not length:
            return tree.scale(vector, 0.0)
        coarsest = max(torch.finfo(t.dtype).eps for t in params.values())
        reach = (self.step or coarsest ** (1 / 3)) * (_norm(params) or 1.0) / length
        ahead, behind = (tree.add(params, vector, alpha=way) for way in (reach, -reach))
        first, second = (self.objective.value_and_grad(w)[1] for w in (ahead, behind))
        return tree.tree_map(lambda a, b: (a - b) / (2.0 * reach), first, second)


def _norm(vector: Params) -> float:
    return float(tree.careful_norm(vector, 2.0))
