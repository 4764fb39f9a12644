"""Loss and metric of a network on data as they are."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.data import Batches, DataSet, ImageSet, as_data_set
from flatmin.objective._batches import arguments
from flatmin.objective._structure import map_tensors, tensors
from flatmin.train._conditions import own_defaults
from flatmin.train.config import TrainConfig
from flatmin.train.distributed import Team
from flatmin.train.goal import Goal, Measure

# Large enough to keep an accelerator busy, small enough for the activations of a wide network.
_BATCH = 500


def evaluate(
    model: nn.Module,
    data: DataSet,
    *,
    config: TrainConfig,
    team: Team | None = None,
    loss: Measure | None = None,
    metric: Measure | None = None,
) -> tuple[float, float]:
    """Mean loss and metric, without augmentation and label smoothing.

    Args:
        model: The network; its mode is put back.
        data: The examples, on the network's device.
        config: Says in which precision and memory layout to compute.
        team: The processes that share the work.
        loss: As for :func:`train`; by default cross-entropy, in nats.
        metric: As for :func:`train`; by default the accuracy, where targets are classes.

    Returns:
        The loss and the metric, means over the examples; of accuracy, the part that is classified
        rightly, in which outputs that are not finite are wrong; NaN where there is no metric.

    Raises:
        TypeError: If the network returns anything but what the loss takes.
        ValueError: If these are not logits of the classes, or loss or metric no mean over examples.

    Example:
        >>> from flatmin.data import load_digits
        >>> _, test = load_digits()
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> for parameter in model.parameters():
        ...     _ = nn.init.zeros_(parameter)
        >>> loss, accuracy = evaluate(model, test, config=TrainConfig(model="own"))
        >>> round(loss, 4)  # log 10
        2.3026
    """
    data = as_data_set(data)
    return measured(model, data, Goal(loss, metric, classes_of(data)), config, team or Team())


def measured(
    model: nn.Module, data: DataSet, goal: Goal, config: TrainConfig, team: Team
) -> tuple[float, float]:
    """Mean loss and metric of a goal."""
    totals = torch.zeros(2, dtype=torch.float64, device=data.device)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), own_defaults(config.dtype):
            for inputs, targets in Batches(data, _BATCH, shuffle=False, dtype=config.dtype):
                own = team.share(torch.arange(len(targets), device=targets.device))
                # A process without examples goes along, since the others may wait for its weights.
                rows = own if len(own) else own.new_zeros(1)
                outputs = forward(model, map_tensors(itemgetter(rows), inputs), config)
                goal.check(outputs, targets[rows], means=True)
                if len(own):
                    totals[0] += goal.loss_sum(outputs, targets[rows])
                    totals[1] += goal.metric_sum(outputs, targets[rows])
    finally:
        model.train(modes[0][1])
        for module, training in modes:  # a part that was frozen stays so
            module.training = training
    loss, metric = (team.sum(totals) / len(data)).tolist()
    return loss, metric


def forward(model: nn.Module, inputs: Any, config: TrainConfig) -> Any:
    """Outputs in the configured precision and memory layout, and the weights' floating type."""
    args, kwargs = arguments(inputs)
    devices = {tensor.device.type for tensor in tensors(inputs)}
    if config.channels_last:
        args, kwargs = map_tensors(_channels_last, (args, kwargs))
    kind = config.autocast
    with torch.autocast(devices.pop(), dtype=kind, enabled=kind is not None):
        outputs = model(*args, **kwargs)
    return map_tensors(lambda t: t.to(config.dtype) if t.is_floating_point() else t, outputs)


def classes_of(data: DataSet) -> int | None:
    """How many classes the labels of an image set are known to name."""
    return len(data.classes) if isinstance(data, ImageSet) else None


def _channels_last(tensor: Tensor) -> Tensor:
    images = tensor.ndim == 4
    return tensor.to(memory_format=torch.channels_last) if images else tensor
