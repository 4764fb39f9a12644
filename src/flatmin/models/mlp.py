"""The toy network of the report's table II."""

from torch import Tensor, nn


class ReportMLP(nn.Module):
    r"""The report's perceptron from points of the plane to two logits.

    .. math:: f(x) = W_5\, h(h(h(W_1 x))), \qquad h(z) = \mathrm{relu}(W z + b)

    The first and the last layer have no bias, and no activation follows the first. Scaling what
    comes into a unit by τ > 0, its bias included, and what goes out by 1/τ changes no output.

    Args:
        hidden_biases: Whether the three hidden layers have a bias, as in table II. Without biases
            it is the network of figures 2 to 4.

    Example:
        >>> import torch
        >>> net = ReportMLP()
        >>> sum(p.numel() for p in net.parameters())  # 2·10 + 3·(10·10 + 10) + 10·2
        370
        >>> net(torch.zeros(7, 2)).shape
        torch.Size([7, 2])

    Source:
        The report, table II.
    """

    def __init__(self, hidden_biases: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(2, 10, bias=False)
        self.hidden = nn.Sequential(
            nn.Linear(10, 10, bias=hidden_biases),
            nn.ReLU(),
            nn.Linear(10, 10, bias=hidden_biases),
            nn.ReLU(),
            nn.Linear(10, 10, bias=hidden_biases),
            nn.ReLU(),
        )
        self.last = nn.Linear(10, 2, bias=False)

    def forward(self, points: Tensor) -> Tensor:
        """Logits of shape [..., 2] for points of shape [..., 2]."""
        logits: Tensor = self.last(self.hidden(self.first(points)))
        return logits
