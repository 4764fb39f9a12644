"""Networks by name."""

from __future__ import annotations

import re

from torch import nn

from flatmin.models import ReportCNN, WideResNet


def build_network(name: str, *, classes: int, channels: int) -> nn.Module:
    """Build a network of the package.

    Args:
        name: ``cnn`` or ``wrn-D-W``.
        classes: Number of logits.
        channels: Channels of the images.

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
    match = re.fullmatch(r"wrn-(\d+)-(\d+)", name)
    if match is None:
        raise ValueError(f"model must be cnn, wrn-D-W (such as wrn-16-2) or own, got {name!r}.")
    depth, width = int(match[1]), int(match[2])
    return WideResNet(depth, width, num_classes=classes, in_channels=channels)
