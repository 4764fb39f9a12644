"""A perceptron with BatchNorm."""

from itertools import pairwise

from torch import Tensor, nn


class Perceptron(nn.Module):
    r"""Linear layers with BatchNorm and ReLU between them.

    .. math:: f(x) = W_{D+1}\, h_D + b, \qquad h_k = \mathrm{relu}(\mathrm{BN}(W_k h_{k-1})),
        \quad h_0 = x

    It trains an order of magnitude faster than a convolutional network of as many parameters, and
    soon knows its training set by heart.

    Args:
        in_features: Numbers in an example, which may have any shape.
        hidden: Width of each hidden layer.
        num_classes: Number of logits.

    Raises:
        ValueError: If a number is below one, or there is no hidden layer.

    Example:
        >>> import torch
        >>> net = Perceptron(12, (5, 5), num_classes=2)
        >>> sum(p.numel() for p in net.parameters())  # 60 + 10 + 25 + 10 + 10 + 2
        117
        >>> net(torch.zeros(7, 3, 2, 2)).shape
        torch.Size([7, 2])

    Source:
        Ioffe and Szegedy 2015, arXiv:1502.03167, section 4.1.
    """

    def __init__(self, in_features: int, hidden: tuple[int, ...], num_classes: int = 10) -> None:
        super().__init__()
        if not hidden or min(in_features, num_classes, *hidden) < 1:
            raise ValueError(
                "a perceptron needs at least one hidden layer, and numbers of at least 1, got "
                f"in_features={in_features}, hidden={hidden} and num_classes={num_classes}."
            )
        self.layers = nn.Sequential(nn.Flatten())
        for before, width in pairwise((in_features, *hidden)):
            self.layers.extend(
                (nn.Linear(before, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())
            )
        self.last = nn.Linear(hidden[-1], num_classes)

    def forward(self, examples: Tensor) -> Tensor:
        """Logits of shape [N, num_classes] for N examples of ``in_features`` numbers each."""
        logits: Tensor = self.last(self.layers(examples))
        return logits
