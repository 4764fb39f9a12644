"""How sharp a trained network is, as rescaling cannot fool."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flatmin.ball import Ball
from flatmin.data import DataSet
from flatmin.objective import EmpiricalLoss
from flatmin.scale import Elementwise
from flatmin.sharpness import average_sharpness, worst_case_sharpness
from flatmin.train.evaluate import classes_of
from flatmin.train.goal import Goal, Measure

RHO = 0.5  # as for `flatmin measure`
EXAMPLES = 256
_STEPS, _SAMPLES = 10, 20


def flatness(
    network: nn.Module, data: DataSet, loss: Measure | None, device: str
) -> dict[str, Any]:
    """Measure the rise of the training loss within ‖ε / |w|‖ ≤ 0.5.

    Args:
        network: The trained network; not changed.
        data: What it was trained on; the first 256 examples are measured on, unvaried.
        loss: The task's loss; None for cross-entropy.
        device: Where the network is.

    Returns:
        ``worst`` case found, ``average`` and its standard ``error``, in units of the loss; or the
        ``reason`` why it cannot be measured.
    """
    goal = Goal(loss, None, classes_of(data))

    def mean_loss(outputs: Any, targets: Tensor) -> Tensor:
        return goal.loss_sum(outputs, targets) / len(targets)

    few = data.subset(torch.arange(min(EXAMPLES, len(data)))).to(device)
    floating = [p.dtype for p in network.parameters() if p.is_floating_point()]
    batch = few.batch(torch.arange(len(few)), None, dtype=floating[0])
    modes = [(module, module.training) for module in network.modules()]
    # By way of training mode, as between epochs: some networks keep tables for evaluation.
    network.train()
    network.eval()
    ball = Ball(RHO, scale=Elementwise())
    try:
        objective = EmpiricalLoss(network, mean_loss, [batch])
        worst = worst_case_sharpness(objective, objective.params, ball, steps=_STEPS)
        mean = average_sharpness(objective, objective.params, ball, samples=_SAMPLES)
    except (ValueError, TypeError, RuntimeError) as error:
        return {"reason": " ".join(str(error).split())[:300]}
    finally:
        for module, training in modes:
            module.training = training
    return {"worst": worst.value, "average": mean.value, "error": mean.standard_error}
