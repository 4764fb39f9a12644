"""Networks by name."""

from __future__ import annotations

import re

from torch import nn

from flatmin.models import Perceptron, ReportCNN, WideResNet


def build_network(name: str, *, classes: int, channels: int, pixels: int = 1024) -> nn.Module:
    """Build a network of the package.

    Args:
        name: ``cnn``, ``wrn-D-W`` or ``mlp-D-W``.
        classes: Number of logits.
        channels: Channels of the images.
        pixels: Their height times their width, which only an ``mlp`` needs to know.

    Returns:
        The network, started from torch's global random state.

    Raises:
        ValueError: If the name is unknown or the depth impossible.

    Example:
        >>> sum(p.numel() for p in build_network("cnn", classes=10, channels=3).parameters())
        62006
    """
    if name == "cnn":
        return ReportCNN(num_classes=classes, in_channels=channels)
    match = re.fullmatch(r"(wrn|mlp)-(\d+)-(\d+)", name)
    if match is None:
        raise ValueError(
            "model must be cnn, wrn-D-W (such as wrn-16-2), mlp-D-W (such as mlp-2-256) or own, "
            f"got {name!r}."
        )
    depth, width = int(match[2]), int(match[3])
    if match[1] == "mlp":
        return Perceptron(channels * pixels, (width,) * depth, num_classes=classes)
    return WideResNet(depth, width, num_classes=classes, in_channels=channels)
