"""The Gauss–Newton matrix in the place of the Hessian: an objective whose curvature it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from flatmin import _room as room
from flatmin._types import Params
from flatmin.objective import _derivatives as derivatives
from flatmin.objective._evaluation import Evaluated, widened
from flatmin.objective._structure import map_tensors
from flatmin.objective.empirical import EmpiricalLoss


@dataclass(frozen=True, slots=True)
class GaussNewton:
    r"""A loss whose second derivative is the Gauss–Newton matrix: the Hessian of a linear network.

    .. math:: G = \frac{1}{n} \sum_{i=1}^{n} J_i^\top \, \nabla^2_f \ell(f_w(x_i), y_i) \, J_i,
        \quad J_i = \partial f_w(x_i) / \partial w

    Loss and gradient are those of the empirical loss. Any second-order measure takes it in the
    place of the loss, as in ``top_eigenvalues(GaussNewton(loss), loss.params)``. G is the Hessian
    without what bends in the network itself: positive semidefinite where ℓ is convex in the
    outputs, and equal to the Hessian where all examples are fitted. A product costs about three
    gradients.

    Args:
        loss: The loss of a network over data; its loss function may depend on the parameters only
            through the outputs.

    Raises:
        TypeError: If it is another objective, of which outputs are not known.

    Example:
        Of (w² − 1)² at w = 2 the Hessian is 12 w² − 4 = 44, and G = 2 (2 w)² = 32.

        >>> class Square(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.w = torch.nn.Parameter(torch.tensor(2.0))
        ...
        ...     def forward(self, x):
        ...         return self.w**2 * x
        >>> ones = torch.ones(1)
        >>> loss = EmpiricalLoss(Square(), torch.nn.functional.mse_loss, [(ones, ones)])
        >>> one = {"w": torch.tensor(1.0)}
        >>> loss.hvp(loss.params, one)["w"].item()
        44.0
        >>> GaussNewton(loss).hvp(loss.params, one)["w"].item()
        32.0

    Source:
        Schraudolph 2002, doi:10.1162/08997660260028683; Martens 2020, arXiv:1412.1193, section 8.
    """

    loss: EmpiricalLoss

    def __post_init__(self) -> None:
        if not isinstance(self.loss, EmpiricalLoss):
            raise TypeError(
                "GaussNewton needs the outputs of a network, so it takes an EmpiricalLoss, got "
                f"{type(self.loss).__name__}."
            )

    @property
    def dtype(self) -> torch.dtype | None:
        """That of the loss."""
        return self.loss.dtype

    def value(self, params: Params) -> Tensor:
        """Mean loss at ``params``."""
        return self.loss.value(params)

    def value_and_grad(self, params: Params) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss at ``params`` and its gradient."""
        return self.loss.value_and_grad(params)

    def hvp(self, params: Params, vector: Params) -> dict[str, Tensor]:
        """Gauss–Newton matrix at ``params`` times ``vector``.

        Raises:
            ValueError: If the loss function sees the parameters other than through the outputs, or
                the network computes the loss itself.
        """

        def product(at: Evaluated) -> dict[str, Tensor]:
            return _product(at, vector)

        # The fused kernels of attention cannot be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH):
            return self.loss._summed(params, product, vector)


def _product(at: Evaluated, vector: Params) -> dict[str, Tensor]:
    """Jᵀ H J v of a batch."""
    outputs: list[Tensor] = []
    ends: list[Tensor] = []

    def cut(output: Tensor) -> Tensor:
        if not output.requires_grad:
            return output
        outputs.append(widened(output))
        ends.append(outputs[-1].detach().requires_grad_())
        return ends[-1]

    given = map_tensors(cut, at.outputs)
    loss = at.loss_function(given, at.targets)
    point = list(at.point.values())
    if not loss.requires_grad:
        raise ValueError(
            "the loss does not depend on the parameters through the outputs, so it has no "
            "Gauss–Newton matrix; check that nothing detaches them."
        )
    beside = torch.autograd.grad(loss, point, allow_unused=True, retain_graph=True)
    if any(grad is not None for grad in beside):
        raise ValueError(
            "the Gauss–Newton matrix needs a loss of the outputs alone, but the loss function sees "
            "the parameters as well, as a penalty does; leave that out of loss_function."
        )
    slopes = torch.autograd.grad(loss, ends, create_graph=True, materialize_grads=True)
    if any(_is_loss(slope) for slope in slopes):
        raise ValueError(
            "the Gauss–Newton matrix needs a loss of the network's outputs, but the loss is itself "
            "one of them, so that its curvature would be zero; compute it outside, as in lambda "
            "outputs, targets: cross_entropy(outputs['logits'], targets)."
        )
    moves = _forward(outputs, point, room.copies([vector[name] for name in at.point]))
    along = torch.stack([(s * m).sum() for s, m in zip(slopes, moves, strict=True)]).sum()
    if not along.requires_grad:  # linear in the outputs
        return {name: torch.zeros_like(t) for name, t in at.point.items()}
    bent = torch.autograd.grad(along, ends, materialize_grads=True)
    grads = torch.autograd.grad(outputs, point, bent, materialize_grads=True)
    return dict(zip(at.point, grads, strict=True))


def _is_loss(slope: Tensor) -> bool:
    """Whether an output is a summand of the loss: one number, of which the loss is linear."""
    return slope.ndim == 0 and not slope.requires_grad and bool(slope)


def _forward(
    outputs: list[Tensor], point: list[Tensor], vector: list[Tensor]
) -> tuple[Tensor, ...]:
    """J v by two backward passes: Jᵀ u is linear in u, and its derivative along v is J v."""
    dummies = [torch.zeros_like(output, requires_grad=True) for output in outputs]
    back = torch.autograd.grad(outputs, point, dummies, create_graph=True, materialize_grads=True)
    along = torch.stack([(b * v).sum() for b, v in zip(back, vector, strict=True)]).sum()
    return derivatives.again(along, dummies, retain_graph=True)
