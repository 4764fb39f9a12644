"""m-sharpness: the mean over small parts of the data of the sharpness on each."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from flatmin._types import Params
from flatmin.ball import Ball
from flatmin.objective import EmpiricalLoss, Objective
from flatmin.sharpness import _point as point
from flatmin.sharpness.ascent import one_step_sharpness
from flatmin.sharpness.measurement import Sharpness


def m_sharpness(
    objective: EmpiricalLoss,
    params: Params,
    ball: Ball,
    *,
    m: int,
    measure: Callable[[Objective, Params, Ball], Sharpness] = one_step_sharpness,
) -> Sharpness:
    r"""Mean sharpness over micro-batches of ``m`` examples, each with a worst point of its own.

    .. math:: S_m(w) = \frac{1}{n} \sum_{B} |B| \max_{\epsilon \in B(w) - w}
        \left[ L_B(w + \epsilon) - L_B(w) \right], \quad |B| \le m

    The smaller ``m``, the larger the value, for more worst points are allowed: a sharpness without
    its ``m`` cannot be compared. SAM training minimizes the one of its (per-device) batch.
    Micro-batches are consecutive examples; put classes in random order first.

    Args:
        objective: Mean loss over a fixed data set. Where it is split over processes, so are the
            micro-batches.
        params: The point ``w``: names to floating tensors of any shape. Read, never written.
        ball: The neighbourhood, the same for each micro-batch.
        m: Examples in a micro-batch; the last may have fewer, and then counts less.
        measure: Sharpness of one micro-batch; for the worst case,
            ``functools.partial(worst_case_sharpness, steps=5)``.

    Returns:
        ``value``, the mean rise, and ``worst_loss``, in units of the loss. The cost counts passes
        over micro-batches; all of them together are one pass over this process's data.

    Raises:
        TypeError: If the objective is of another kind, or ``m`` no whole number.
        ValueError: If ``m`` is below one, or the loss of a micro-batch at ``params`` is not finite.

    Example:
        Two examples pull a weight in opposite directions. Together they leave a minimum, where
        the gradient is zero; one by one, each rises by 3² − 2² at distance 1.

        >>> pull = torch.nn.Linear(1, 1, bias=False)
        >>> data = [(torch.ones(2, 1), torch.tensor([[2.0], [-2.0]]))]
        >>> objective = EmpiricalLoss(pull, torch.nn.functional.mse_loss, data)
        >>> m_sharpness(objective, {"weight": torch.zeros(1, 1)}, Ball(rho=1.0), m=1).value
        5.0

    Source:
        Foret et al. 2021, arXiv:2010.01412, section 4.1.
    """
    if not hasattr(objective, "micro"):
        raise TypeError(
            "m_sharpness cuts the data of an EmpiricalLoss, got "
            f"{type(objective).__name__}; give the EmpiricalLoss that it is made of."
        )
    parts = [
        (part.total_weight, measure(part, params, ball))
        for part in objective.micro(m)
        if part.total_weight
    ]
    share = objective.total_weight
    totals = torch.tensor(
        [
            math.fsum(size * found.value for size, found in parts) / share,
            math.fsum(size * found.loss for size, found in parts) / share,
        ],
        dtype=torch.float64,
        device=next(iter(params.values())).device,
    )
    value, loss = objective.reduce(totals).tolist()
    here = point.survey(objective, params, ball.scale)
    for sentence in {sentence: None for _, found in parts for sentence in found.warnings}:
        here.warn(True, sentence)
    return Sharpness(
        value=value,
        loss=loss,
        gradients=sum(found.gradients for _, found in parts),
        forwards=sum(found.forwards for _, found in parts),
        hvps=sum(found.hvps for _, found in parts),
        dead_fraction=here.dead_fraction,
        warnings=tuple(here.warnings),
    )
