"""The "very simple model" of the report's section III."""

from torch import Tensor, nn


class ReportCNN(nn.Module):
    """Two convolutions with pooling and three linear layers, for images of 32 × 32 pixels.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of the images: 3 for color, 1 for gray.

    Raises:
        ValueError: If either number is below one.

    Example:
        >>> import torch
        >>> net = ReportCNN()
        >>> sum(p.numel() for p in net.parameters())  # 456 + 2416 + 48120 + 10164 + 850
        62006
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    Source:
        The report, section III; the shape is that of LeNet-5 (LeCun et al. 1998).
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        if num_classes < 1 or in_channels < 1:
            raise ValueError(
                "num_classes and in_channels must be at least 1, "
                f"got {num_classes} and {in_channels}."
            )
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape [N, num_classes] for images of shape [N, in_channels, 32, 32]."""
        logits: Tensor = self.classifier(self.features(images))
        return logits
