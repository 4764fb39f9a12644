"""What a network survives: the rise of the loss when its weights are rounded to a few bits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flatmin._types import Params
from flatmin.objective import Objective
from flatmin.scale import Identity
from flatmin.sharpness import _point as point
from flatmin.sharpness.measurement import Sharpness


def rounding_rise(objective: Objective, params: Params, *, bits: int = 4) -> Sharpness:
    r"""Rise of the loss when weights are rounded to the nearest of ``2^bits - 1`` values a row.

    .. math:: S(w) = L(Q(w)) - L(w), \quad Q(w)_{ij} = s_i \operatorname{round}(w_{ij} / s_i),
        \quad s_i = \max_j |w_{ij}| / (2^{b - 1} - 1)

    Symmetric, one step size s for each output channel, as weights are usually stored after
    training. Tensors of two and more dimensions are rounded, the first one taken as that of the
    output channels; biases, gains and other vectors stay. A rise in one direction and not a
    worst case: it may be negative. The steps follow a rescaling of output channels, but not of
    what reads them, so this measure is not invariant. Costs two forward passes.

    Args:
        objective: Mean loss over a fixed data set, in nats per example for cross-entropy.
        params: The point ``w``: names to floating tensors of any shape. Read, never written.
        bits: Of each weight, with its sign; 8 and 4 are usual.

    Returns:
        ``value``, the rise, and ``worst_loss``, the loss of the rounded network.

    Raises:
        ValueError: If ``bits`` is below two or above 24, or the loss at ``params`` is not finite.

    Example:
        With two bits a weight is −s, 0 or s: of (4, 1) nothing but the 4 is left.

        >>> from flatmin import FunctionObjective
        >>> total = FunctionObjective(lambda w: w["x"].sum())
        >>> rounding_rise(total, {"x": torch.tensor([[4.0, 1.0]])}, bits=2).value
        -1.0

    Source:
        Krishnamoorthi 2018, arXiv:1806.08342, on symmetric rounding of weights channel by channel.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 24:
        raise ValueError(f"bits must be a whole number from 2 to 24, got {bits!r}.")
    here = point.survey(objective, params, Identity())
    here.warn(
        all(t.ndim < 2 for t in params.values()),
        "no parameter has rows, of two dimensions or more, so nothing was rounded.",
    )
    base = point.finite(objective.value(params))
    rise = objective.value({name: _rounded(t, bits) for name, t in params.items()}).item() - base
    if not math.isfinite(rise):
        rise = math.inf
    here.check_finite(int(math.isinf(rise)), 1)
    here.check_rounding(rise, base)
    return Sharpness(
        value=rise,
        loss=base,
        forwards=2,
        dead_fraction=here.dead_fraction,
        warnings=tuple(here.warnings),
    )


def _rounded(weight: Tensor, bits: int) -> Tensor:
    if weight.ndim < 2 or not weight.numel():
        return weight
    largest = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    levels = 2 ** (bits - 1) - 1
    whole = torch.round(weight / torch.where(largest > 0, largest, 1.0) * levels)
    rounded: Tensor = whole * (largest / levels)
    return rounded
