"""Loss and accuracy of a network on images as they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin.data import Batches, ImageSet
from flatmin.train._conditions import own_defaults
from flatmin.train.config import TrainConfig
from flatmin.train.distributed import Team

# Large enough to keep an accelerator busy, small enough for the activations of a wide network.
_BATCH = 500


def evaluate(
    model: nn.Module, image_set: ImageSet, *, config: TrainConfig, team: Team | None = None
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy, without augmentation and label smoothing.

    Args:
        model: The network; its mode is put back.
        image_set: The images, on the network's device.
        config: Says in which precision and memory layout to compute.
        team: The processes that share the work.

    Returns:
        The loss in nats per image, and the part of the images that is classified rightly.

    Raises:
        TypeError: If the network returns anything but one tensor of numbers.
        ValueError: If these are not logits of the images' classes.

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
    team = team or Team()
    totals = torch.zeros(2, dtype=torch.float64, device=image_set.device)
    classes = len(image_set.classes)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), own_defaults(config.dtype):
            for images, labels in Batches(image_set, _BATCH, shuffle=False, dtype=config.dtype):
                own = team.share(torch.arange(len(labels), device=labels.device))
                # A process without images goes along, since the others may wait for its weights.
                rows = own if len(own) else own.new_zeros(1)
                logits = forward(model, images[rows], config, classes)[: len(own)]
                targets = labels[rows][: len(own)]
                totals[0] += F.cross_entropy(logits, targets, reduction="sum")
                totals[1] += (logits.argmax(dim=1) == targets).sum()
    finally:
        model.train(modes[0][1])
        for module, training in modes:  # a part that was frozen stays so
            module.training = training
    loss, correct = (team.sum(totals) / len(image_set)).tolist()
    return loss, correct


def forward(model: nn.Module, images: Tensor, config: TrainConfig, classes: int) -> Tensor:
    """Logits in the configured precision and memory layout, in the floating type of the weights."""
    if config.channels_last:
        images = images.to(memory_format=torch.channels_last)
    kind = config.autocast
    with torch.autocast(images.device.type, dtype=kind, enabled=kind is not None):
        logits = model(images)
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        what = f"{logits.dtype}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise TypeError(
            f"The network must return its logits, one tensor [images, classes] of real numbers, "
            f"got {what}; wrap it in a module that returns the logits alone."
        )
    if logits.ndim != 2 or len(logits) != len(images) or logits.shape[1] < classes:
        raise ValueError(
            f"The network must return logits of shape [{len(images)} images, {classes} classes or "
            f"more], got {list(logits.shape)}."
        )
    return logits.to(config.dtype)
