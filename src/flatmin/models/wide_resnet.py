"""The wide residual network with which SAM and ASAM were published."""

from torch import Tensor, nn


class WideResNet(nn.Module):
    r"""Pre-activation residual network WRN-depth-width, for images of any size divisible by 4.

    .. math:: x_{l+1} = S(x_l) + C_2(\mathrm{drop}(a_2(C_1(a_1(x_l))))), \qquad
              a = \mathrm{relu} \circ \mathrm{BN}

    Three groups of (depth − 4) / 6 such blocks have 16, 32 and 64 times ``width`` channels; the
    second and the third halve the resolution. ``S`` is the identity, or, where the shape changes,
    a 1 × 1 convolution of the block's first activation.

    Args:
        depth: Number of convolutions, counting the first, two a block and three shortcuts:
            6n + 4 with n ≥ 1.
        width: Factor ``k`` on the channels of a plain residual network.
        num_classes: Number of logits.
        in_channels: Channels of the images.
        dropout: Probability of dropping an activation between a block's two convolutions.

    Raises:
        ValueError: If the depth is not 6n + 4, a number of channels or classes is below one, or
            ``dropout`` lies outside [0, 1).

    Example:
        >>> import torch
        >>> with torch.device("meta"):  # shapes only, nothing is allocated
        ...     net = WideResNet(depth=28, width=10)
        >>> sum(p.numel() for p in net.parameters())
        36479194
        >>> WideResNet(depth=10, width=1, in_channels=1)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])

    Source:
        Zagoruyko and Komodakis 2016, arXiv:1605.07146, table 1; He et al. 2015,
        arXiv:1502.01852, eq. 14 for the initial convolutions.
    """

    def __init__(
        self,
        depth: int = 28,
        width: int = 10,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth must be 6n + 4 (10, 16, 22, 28, 34, 40, …), got {depth}.")
        if min(width, num_classes, in_channels) < 1:
            raise ValueError(
                "width, num_classes and in_channels must be at least 1, "
                f"got {width}, {num_classes} and {in_channels}."
            )
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be a probability in [0, 1), got {dropout}.")
        blocks = (depth - 4) // 6
        self.stem = nn.Conv2d(in_channels, 16, kernel_size=3, padding=1, bias=False)
        self.group1 = _group(blocks, 16, 16 * width, stride=1, dropout=dropout)
        self.group2 = _group(blocks, 16 * width, 32 * width, stride=2, dropout=dropout)
        self.group3 = _group(blocks, 32 * width, 64 * width, stride=2, dropout=dropout)
        self.norm = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(64 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape [N, num_classes] for images of shape [N, in_channels, H, W]."""
        features = self.group3(self.group2(self.group1(self.stem(images))))
        logits: Tensor = self.classifier(self.flatten(self.pool(self.relu(self.norm(features)))))
        return logits


class _Block(nn.Module):
    """Two normalized, activated 3 × 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu1(self.norm1(x))
        residual: Tensor = self.conv2(self.dropout(self.relu2(self.norm2(self.conv1(activated)))))
        # The authors' code feeds a changed shortcut with the activation, an identity with x.
        return residual + (x if self.shortcut is None else self.shortcut(activated))


def _group(blocks: int, inputs: int, outputs: int, *, stride: int, dropout: float) -> nn.Sequential:
    first = _Block(inputs, outputs, stride=stride, dropout=dropout)
    rest = [_Block(outputs, outputs, stride=1, dropout=dropout) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)
