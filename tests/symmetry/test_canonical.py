"""One representative per orbit: balanced, unique, and reported where it is not."""

import copy
import math

import pytest
import torch
from foreign_networks import build
from torch import Tensor, nn

from flatmin.models import ReportMLP, WideResNet
from flatmin.symmetry import balance, canonicalize, find_scalings, rescale, verify
from slowly import slow_but


def test_closed_form() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0], [0.0]]))
        model[0].bias.copy_(torch.tensor([4.0, 2.0]))
        model[2].weight.copy_(torch.tensor([[20.0, 0.5]]))
    scalings = find_scalings(model, torch.ones(1, 1).double())
    found = canonicalize(model, scalings)
    # 5 τ = 20 / τ and 2 τ = 0.5 / τ.
    torch.testing.assert_close(found.factors[0], torch.tensor([2.0, 0.5]).double())
    torch.testing.assert_close(model[2].weight, torch.tensor([[10.0, 1.0]]).double())
    assert found.num_idle == 0


@pytest.mark.parametrize(
    "name", slow_but(["mlp", "residual mlp", "resnet", "nested", "autoencoder"], "mlp")
)
def test_every_network_of_an_orbit_comes_to_the_same_tensors(name: str) -> None:
    x: Tensor
    if name == "mlp":
        model, x = ReportMLP().double(), torch.randn(6, 2).double()
    else:
        model, x = build(name)
    scalings = find_scalings(model, x)
    twin, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    for _ in range(10):
        rescale(twin, scalings, scalings.sample(generator))
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    assert max((a - b).abs().max() for a, b in pairs) > 0.1  # the negative: they differed
    with torch.no_grad():
        before = model(x)
    for network in (model, twin):
        canonicalize(network, scalings)
    with torch.no_grad():
        torch.testing.assert_close(model(x), before, rtol=1e-11, atol=1e-11)
    other = twin.state_dict()
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, other[key], rtol=1e-9, atol=1e-9)


def test_incoming_equals_outgoing() -> None:
    model, x = build("residual mlp")  # its stream exchanges weight with itself through no layer
    canonicalize(model, find_scalings(model, x))
    incoming = sum(
        layer.weight.square().sum(1) + layer.bias.square() for layer in (model.stem, *model.down)
    )
    outgoing = sum(layer.weight.square().sum(0) for layer in (*model.up, model.head))
    torch.testing.assert_close(incoming, outgoing, rtol=1e-11, atol=0)


@pytest.mark.slow
def test_units_that_exchange_weight_with_each_other() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.a(x))
            return self.c(h + self.b(h))

    model = Net().double()
    scalings = find_scalings(model, torch.ones(1, 2).double())
    twin = copy.deepcopy(model)
    rescale(twin, scalings, [torch.tensor([0.01, 0.3, 5.0, 70.0])])
    canonicalize(model, scalings)
    canonicalize(twin, scalings)
    torch.testing.assert_close(twin.b.weight, model.b.weight, rtol=1e-10, atol=1e-12)
    rows, columns = model.b.weight.square().sum(1), model.b.weight.square().sum(0)
    incoming = rows + model.a.weight.square().sum(1) + model.a.bias.square() + model.b.bias.square()
    outgoing = columns + model.c.weight.square().sum(0)
    torch.testing.assert_close(incoming, outgoing, rtol=1e-10, atol=0)


@pytest.mark.slow
def test_batch_norm_rows_get_norm_one() -> None:
    model, x = WideResNet(10, 1).double().eval(), torch.randn(2, 3, 16, 16).double()
    scalings = find_scalings(model, x)
    found = balance(dict(model.named_parameters()), scalings)
    assert verify(model, scalings, found.factors, x).deviation <= 1e-12
    canonicalize(model, scalings)
    rows = model.group1[0].conv1.weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


def test_idle_units_are_left_alone_and_reported() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    with torch.no_grad():
        model[0].weight[0] = 0
        model[0].bias[0] = 0  # receives nothing
        model[2].weight[:, 1] = 0  # sends nothing
    before = model[0].weight[1].clone()
    found = canonicalize(model, find_scalings(model, torch.ones(1, 2).double()))
    assert found.idle[0].tolist() == [True, True, False]
    assert found.num_idle == 2
    assert found.factors[0][:2].tolist() == [1, 1]
    assert torch.equal(model[0].weight[1], before)
    assert all(math.isfinite(p.sum().item()) for p in model.parameters())


def test_not_converging_is_an_error() -> None:
    model = nn.Sequential(*[nn.Linear(3, 3) for _ in range(6)]).double()
    scalings = find_scalings(model, torch.ones(1, 3).double())
    with pytest.raises(RuntimeError, match="did not converge"):
        balance(dict(model.named_parameters()), scalings, max_sweeps=2)
