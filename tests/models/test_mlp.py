import pytest
import torch
from torch import nn

from flatmin.models import ReportMLP


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("hidden_biases", "expected"), [(True, 370), (False, 340)])
def test_has_the_parameters_of_table_two(hidden_biases: bool, expected: int) -> None:
    model = ReportMLP(hidden_biases)
    assert count(model) == expected
    biases = [name for name, _ in model.named_parameters() if name.endswith("bias")]
    assert biases == (["hidden.0.bias", "hidden.2.bias", "hidden.4.bias"] if hidden_biases else [])


def test_is_table_two_written_out() -> None:
    torch.manual_seed(0)
    model = ReportMLP().double()
    x = torch.randn(5, 2, dtype=torch.float64)
    z = x @ model.first.weight.T
    for layer in (0, 2, 4):
        linear = model.hidden[layer]
        z = (z @ linear.weight.T + linear.bias).clamp(min=0)
    torch.testing.assert_close(model(x), z @ model.last.weight.T, rtol=1e-12, atol=1e-14)


def test_no_activation_follows_the_first_layer() -> None:
    # With an activation, mixing signs of the first layer's units would change the outputs.
    torch.manual_seed(1)
    model = ReportMLP().double()
    x = torch.randn(5, 2, dtype=torch.float64)
    before = model(x)
    with torch.no_grad():
        model.first.weight.neg_()
        model.hidden[0].weight.neg_()
    torch.testing.assert_close(model(x), before, rtol=1e-12, atol=1e-14)
    with torch.no_grad():
        model.hidden[0].weight.neg_()
        model.hidden[2].weight.neg_()
    assert not torch.allclose(model(x), before)


def test_scaling_a_hidden_unit_changes_nothing_only_if_its_bias_is_scaled_too() -> None:
    torch.manual_seed(2)
    model = ReportMLP().double()
    x = torch.randn(5, 2, dtype=torch.float64)
    before = model(x)
    with torch.no_grad():
        model.hidden[0].weight.mul_(4.0)
        model.hidden[2].weight.div_(4.0)
    assert not torch.allclose(model(x), before)
    with torch.no_grad():
        model.hidden[0].bias.mul_(4.0)
    torch.testing.assert_close(model(x), before, rtol=1e-12, atol=1e-14)


def test_traces_to_modules_alone() -> None:
    graph = torch.fx.symbolic_trace(ReportMLP()).graph
    assert {node.op for node in graph.nodes} == {"placeholder", "call_module", "output"}
