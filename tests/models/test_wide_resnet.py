import math
from typing import Any

import pytest
import torch
from torch import nn

from flatmin.models import WideResNet


@pytest.mark.parametrize(
    ("depth", "width", "classes", "expected"),
    # Published sizes; 16-4 and 28-10 with ten classes, 28-10 with a hundred.
    [(28, 10, 10, 36_479_194), (28, 10, 100, 36_536_884), (16, 4, 10, 2_748_890)],
)
def test_has_the_published_number_of_parameters(
    depth: int, width: int, classes: int, expected: int
) -> None:
    with torch.device("meta"):
        model = WideResNet(depth, width, num_classes=classes)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("depth", [10, 16, 22, 28, 40])
def test_depth_counts_the_convolutions(depth: int) -> None:
    with torch.device("meta"):
        model = WideResNet(depth, 2)
    square = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    shortcuts = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m not in square]
    assert len(square) == depth - 3  # three more are counted for the changed shortcuts
    assert len(shortcuts) == 3


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 16), (3, 32)])
def test_takes_any_size_divisible_by_four(channels: int, size: int) -> None:
    torch.manual_seed(0)
    model = WideResNet(10, 1, num_classes=7, in_channels=channels)
    x = torch.randn(2, channels, size, size)
    assert model(x).shape == (2, 7)
    assert model.stem(x).shape[-1] == size
    assert model.group3(model.group2(model.group1(model.stem(x)))).shape[-1] == size // 4


def test_a_block_is_the_formula() -> None:
    torch.manual_seed(0)
    model = WideResNet(16, 1).double().eval()
    changed, same = model.group2[0], model.group2[1]
    x = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    # Fresh BatchNorm in eval mode divides by sqrt(1 + 1e-5) and nothing else.
    scale = 1.0 / math.sqrt(1.0 + 1e-5)
    a = (x * scale).clamp(min=0)
    h = changed.conv2((changed.conv1(a) * scale).clamp(min=0))
    y = h + changed.shortcut(a)
    torch.testing.assert_close(changed(x), y, rtol=1e-10, atol=1e-12)
    assert same.shortcut is None
    h = same.conv2((same.conv1((y * scale).clamp(min=0)) * scale).clamp(min=0))
    torch.testing.assert_close(same(y), y + h, rtol=1e-10, atol=1e-12)


def test_convolutions_start_as_he_initialized() -> None:
    torch.manual_seed(0)
    conv = WideResNet(10, 4).group3[0].conv2
    expected = math.sqrt(2.0 / (256 * 9))
    n = conv.weight.numel()
    # The standard deviation of a sample standard deviation is σ / sqrt(2n).
    assert abs(conv.weight.std().item() - expected) < 4 * expected / math.sqrt(2 * n)


def test_activations_are_distinct_and_not_in_place() -> None:
    model = WideResNet(16, 1)
    relus = [m for m in model.modules() if isinstance(m, nn.ReLU)]
    assert len(relus) == 2 * 6 + 1
    assert not any(relu.inplace for relu in relus)


def test_traces_with_addition_as_the_only_function() -> None:
    graph = torch.fx.symbolic_trace(WideResNet(10, 1)).graph
    functions = {node.target.__name__ for node in graph.nodes if node.op == "call_function"}
    assert functions == {"add"}
    targets = [node.target for node in graph.nodes if node.op == "call_module"]
    assert len(targets) == len(set(targets))


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    model = WideResNet(10, 1, dropout=0.5)
    x = torch.randn(2, 3, 8, 8)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 27}, r"6n \+ 4"),
        ({"depth": 4}, r"6n \+ 4"),
        ({"width": 0}, "width"),
        ({"num_classes": 0}, "num_classes"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_refuses_what_is_no_network(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WideResNet(**arguments)
