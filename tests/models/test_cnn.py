import pytest
import torch

from flatmin.models import ReportCNN


@pytest.mark.parametrize(
    ("classes", "channels", "expected"), [(10, 3, 62006), (10, 1, 61706), (100, 3, 69656)]
)
def test_parameters(classes: int, channels: int, expected: int) -> None:
    model = ReportCNN(classes, channels)
    assert sum(p.numel() for p in model.parameters()) == expected
    assert model(torch.zeros(2, channels, 32, 32)).shape == (2, classes)


def test_traces_to_modules_alone() -> None:
    graph = torch.fx.symbolic_trace(ReportCNN()).graph
    assert {node.op for node in graph.nodes} == {"placeholder", "call_module", "output"}


def test_refuses_no_classes() -> None:
    with pytest.raises(ValueError, match="num_classes"):
        ReportCNN(0)
