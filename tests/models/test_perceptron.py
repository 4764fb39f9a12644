"""The perceptron with BatchNorm, against its formula."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flatmin.models import Perceptron


def test_is_the_formula() -> None:
    """Each hidden layer: subtract the batch's mean, divide by its deviation, cut at zero."""
    torch.manual_seed(0)
    net = Perceptron(12, (5, 4), num_classes=3).double()
    x = torch.randn(9, 3, 2, 2, dtype=torch.float64)
    hidden = x.flatten(1)
    weights = [p for name, p in net.named_parameters() if p.dim() == 2]
    for weight in weights[:-1]:
        z = hidden @ weight.T
        hidden = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()).clamp(min=0)
    expected = hidden @ weights[-1].T + net.last.bias
    torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-12)


def test_learns_wrong_labels_by_heart() -> None:
    """What the studies on wrong labels need of it."""
    torch.manual_seed(0)
    x, y = torch.randn(64, 20), torch.randint(10, (64,))
    net = Perceptron(20, (64, 64))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    assert (net(x).argmax(1) == y).all()


@pytest.mark.parametrize(("features", "hidden"), [(0, (3,)), (4, ()), (4, (3, 0))])
def test_refuses_what_is_no_network(features: int, hidden: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one hidden layer"):
        Perceptron(features, hidden)


def test_biases_of_hidden_layers_are_those_of_batchnorm() -> None:
    linear = [module for module in Perceptron(4, (3,)).modules() if isinstance(module, nn.Linear)]
    assert [layer.bias is None for layer in linear] == [True, False]
