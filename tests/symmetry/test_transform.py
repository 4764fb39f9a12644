"""Applying a symmetry: exact by hand on tiny nets, to rounding on real ones, in place."""

import copy

import pytest
import torch
from foreign_networks import ResNet, build, gelu_mlp
from torch import Tensor, nn

from flatmin.models import ReportCNN, ReportMLP, WideResNet
from flatmin.symmetry import (
    Scalings,
    find_flips,
    find_permutations,
    find_scalings,
    flip,
    permute,
    rescale,
    verify,
)
from slowly import slow_but

LIMIT = {torch.float64: 1e-12, torch.float32: 5e-5}


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    moves_statistics = model.training and any(True for _ in model.buffers())
    with torch.no_grad():
        return (copy.deepcopy(model) if moves_statistics else model)(x).double()


def worst_deviation(model: nn.Module, x: Tensor, scalings: Scalings, seed: int) -> float:
    """Largest deviation / rms over 50 cumulative rescalings in place."""
    generator = torch.Generator().manual_seed(seed)
    before = outputs(model, x)
    worst = 0.0
    for _ in range(50):
        rescale(model, scalings, scalings.sample(generator))
        worst = max(worst, (outputs(model, x) - before).abs().max().item())
    return worst / before.square().mean().sqrt().item()


@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("seed", slow_but(range(20), 0, 1))
def test_fifty_rescalings_of_the_reports_perceptron(seed: int, dtype: torch.dtype) -> None:
    torch.manual_seed(seed)
    model, x = ReportMLP().to(dtype), 5 * torch.randn(8, 2).to(dtype)
    assert any(name.endswith("bias") for name, _ in model.named_parameters())
    scalings = find_scalings(model, x)
    weights_only = copy.deepcopy(model)
    assert worst_deviation(model, x, scalings, seed) <= LIMIT[dtype]
    # The report scaled the weights alone: with biases this is another function.
    if dtype == torch.float64:
        assert worst_deviation(weights_only, x, scalings.weights_only(), seed) > 1.0


@pytest.mark.parametrize("dtype", slow_but(LIMIT, torch.float64))
def test_fifty_rescalings_of_the_cnn(dtype: torch.dtype) -> None:
    model, x = ReportCNN().to(dtype), torch.randn(4, 3, 32, 32, dtype=dtype)
    scalings = find_scalings(model, x)
    weights_only = copy.deepcopy(model)
    assert worst_deviation(model, x, scalings, 0) <= LIMIT[dtype]
    assert worst_deviation(weights_only, x, scalings.weights_only(), 0) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize(("train", "eps"), [(False, 1e-5), (False, 1e-38), (True, 1e-38)])
def test_fifty_rescalings_of_wide_resnet(train: bool, eps: float, dtype: torch.dtype) -> None:
    model, x = WideResNet(10, 1).to(dtype), torch.randn(4, 3, 16, 16, dtype=dtype)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
    for _ in range(3):
        model(x)  # moves the running statistics away from 0 and 1
    model.train(train)
    scalings = find_scalings(model, x)
    assert len(scalings.groups) == 13
    assert worst_deviation(model, x, scalings, 0) <= LIMIT[dtype]


@pytest.mark.slow
def test_batch_statistics_with_a_usual_eps_are_not_exact() -> None:
    model = WideResNet(10, 1).double()
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    scalings = find_scalings(model.eval(), x)  # offered in eval mode
    factors = [0.02 * factor for factor in scalings.sample(torch.Generator().manual_seed(0))]
    assert verify(model, scalings, factors, x).deviation <= 1e-12
    assert verify(model.train(), scalings, factors, x).deviation > 1e-4


@pytest.mark.slow
def test_eval_mode_needs_the_running_statistics() -> None:
    model, x = ResNet().double(), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    model(x)
    model.eval()
    scalings = find_scalings(model, x)
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    before = outputs(model, x)
    rescale(model, scalings, scalings.sample(torch.Generator().manual_seed(0)))
    torch.testing.assert_close(outputs(model, x), before, rtol=1e-11, atol=1e-12)
    for name, buffer in model.named_buffers():
        buffer.copy_(statistics[name])
    assert (outputs(model, x) - before).abs().max() > 0.1 * before.square().mean().sqrt()


def test_batch_norm_by_hand() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1, eps=0.5), nn.ReLU(), nn.Linear(1, 1))
    model = model.double().eval()
    with torch.no_grad():
        for tensor, value in zip(
            model.state_dict().values(), [2, 3, 5, 7, 11, 1.5, 0, 13, 17], strict=True
        ):
            tensor.fill_(value)
    scalings = find_scalings(model, torch.ones(1, 1).double())
    rescale(model, scalings, [torch.tensor([2.0]), torch.tensor([4.0])])
    # Rows, mean by 2, var + eps by 2²: 4 · (1.5 + 0.5) - 0.5; gain and bias by 4, columns by 1/4.
    assert [t.item() for t in model.state_dict().values()] == [4, 6, 20, 28, 22, 7.5, 0, 3.25, 17]
    # Rows shrunk until var + eps is below eps: the variance is negative, var + eps is not.
    rescale(model, scalings, [torch.tensor([0.125]), torch.tensor([1.0])])
    assert model[1].running_var.item() == 8 / 64 - 0.5
    assert model(torch.ones(2, 1).double()).isfinite().all()


def test_flattened_channels_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(8, 1))
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[2].weight.fill_(1)
    scalings = find_scalings(model, torch.zeros(1, 1, 2, 2))
    rescale(model, scalings, [torch.tensor([2.0, 4.0])])
    assert model[0].weight.flatten().tolist() == [2, 4]
    assert model[2].weight.flatten().tolist() == [0.5] * 4 + [0.25] * 4


def test_grouped_convolution_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=2, bias=False)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    scalings = find_scalings(model, torch.zeros(1, 1, 2, 2))
    rescale(model, scalings, [torch.tensor([1.0, 2.0, 4.0, 8.0])])
    # Outputs 0 and 1 read channels 0 and 1; outputs 2 and 3 read channels 2 and 3.
    assert model[2].weight.flatten(1).tolist() == [[1, 0.5], [1, 0.5], [0.25, 0.125], [0.25, 0.125]]


def test_a_residual_branch_within_a_group_by_hand() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(1, 2, bias=False), nn.Linear(2, 2, bias=False)
            self.c = nn.Linear(2, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.a(x))
            return self.c(h + self.b(h))

    model = Net()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    scalings = find_scalings(model, torch.zeros(1, 1))
    assert [g.size for g in scalings.groups] == [2]
    rescale(model, scalings, [torch.tensor([2.0, 8.0])])
    assert model.b.weight.tolist() == [[1, 0.25], [4, 1]]  # row factor over column factor
    assert (model.a.weight.flatten().tolist(), model.c.weight.tolist()) == ([2, 8], [[0.5, 0.125]])


def test_scaling_through_gelu_is_visible() -> None:
    model = gelu_mlp().double()
    x = 5 * torch.randn(6, 4, dtype=torch.float64)
    twin = copy.deepcopy(model)
    twin[1], twin[3] = nn.ReLU(), nn.ReLU()
    scalings = find_scalings(twin, x)  # right for ReLU, forced upon GELU
    factors = scalings.sample(torch.Generator().manual_seed(0))
    assert verify(twin, scalings, factors, x).deviation <= 1e-14
    assert verify(model, scalings, factors, x).deviation > 0.05


@pytest.mark.slow
def test_in_place_keeps_objects_memory_and_optimizer() -> None:
    model, x = build("resnet")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    places = [(id(p), p.data_ptr(), p.requires_grad) for p in model.parameters()]
    buffers = [(id(b), b.data_ptr()) for b in model.buffers()]
    scalings = find_scalings(model, x)
    rescale(model, scalings, scalings.sample())
    assert [(id(p), p.data_ptr(), p.requires_grad) for p in model.parameters()] == places
    assert [(id(b), b.data_ptr()) for b in model.buffers()] == buffers
    before = model.fc.weight.clone()
    model(x).square().mean().backward()
    optimizer.step()
    assert not torch.equal(model.fc.weight, before)


def test_apply_is_pure_and_differentiable() -> None:
    model, x = build("functional")
    state = dict(model.named_parameters())
    scalings = find_scalings(model, x)
    before = {name: tensor.clone() for name, tensor in state.items()}
    moved = scalings.apply(state, scalings.sample(torch.Generator().manual_seed(0)))
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert list(moved) == list(state)
    assert moved["fc3.bias"] is state["fc3.bias"]
    # d (τ w) / d w = τ, and the factor of the first unit of the first group is its only one.
    (gradient,) = torch.autograd.grad(moved["fc1.bias"].sum(), state["fc1.bias"])
    torch.testing.assert_close(gradient * before["fc1.bias"], moved["fc1.bias"].detach())
    with pytest.raises(ValueError, match=r"the state lacks 'fc1.weight'"):
        scalings.apply({"module.fc1.weight": torch.zeros(7, 12)}, scalings.sample())


@pytest.mark.slow
def test_there_and_back_again() -> None:
    model, x = build("nested")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scalings = find_scalings(model, x)
    factors = scalings.sample(torch.Generator().manual_seed(0))
    rescale(model, scalings, factors)
    rescale(model, scalings, [1 / factor for factor in factors])
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ([torch.tensor([1.0, 0.0, 1.0])], "positive and finite; those of group 0"),
        ([torch.tensor([1.0, -2.0, 1.0])], "positive and finite"),
        ([torch.tensor([1.0, float("inf"), 1.0])], "positive and finite"),
        ([torch.tensor([1.0, float("nan"), 1.0])], "positive and finite"),
        ([torch.ones(2)], r"shapes \[\(3,\)\] is needed, got \[\(2,\)\]"),
        ([], r"shapes \[\(3,\)\] is needed, got \[\]"),
    ],
)
def test_bad_factors_are_refused_and_nothing_is_written(
    factors: list[Tensor], message: str
) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    before = copy.deepcopy(model.state_dict())
    scalings = find_scalings(model, torch.zeros(1, 2))
    with pytest.raises(ValueError, match=message):
        rescale(model, scalings, factors)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_bad_use_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    x = torch.zeros(1, 2)
    scalings, orders, flips = (f(model, x) for f in (find_scalings, find_permutations, find_flips))
    with pytest.raises(ValueError, match="0 < low <= high"):
        scalings.sample(low=0.0)
    nothing = Scalings((), ())
    with pytest.raises(ValueError, match="no groups to transform, got 1 tensors; print these Scal"):
        rescale(model, nothing, [torch.ones(3)])
    with pytest.raises(TypeError, match="Scalings are needed, got Flips"):
        rescale(model, flips, flips.sample())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="each of 0 … 2 once"):
        permute(model, orders, [torch.tensor([0, 0, 1])])
    with pytest.raises(ValueError, match="must be -1 or 1"):
        flip(model, flips, [torch.tensor([1.0, 2.0, 1.0])])


def test_permutation_by_hand() -> None:
    model = nn.Sequential(nn.Linear(1, 3), nn.GELU(), nn.Linear(3, 1))
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
        model[2].weight.copy_(torch.tensor([[4.0, 5.0, 6.0]]))
    permute(model, find_permutations(model, torch.zeros(1, 1)), [torch.tensor([2, 0, 1])])
    assert model[0].bias.tolist() == [3, 1, 2]
    assert model[2].weight.tolist() == [[6, 4, 5]]


def test_flip_by_hand_through_batch_norm() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), nn.ReLU(), nn.Linear(1, 1))
    model = model.double().eval()
    with torch.no_grad():
        for tensor, value in zip(
            model.state_dict().values(), [2, 3, 5, 7, 11, 1.5, 0, 13, 17], strict=True
        ):
            tensor.fill_(value)
    flips = find_flips(model, torch.ones(1, 1).double())
    flip(model, flips, [torch.tensor([-1.0])])
    # The variance does not know the sign; the gain undoes it, the bias of the norm stays.
    assert [t.item() for t in model.state_dict().values()] == [-2, -3, -5, 7, -11, 1.5, 0, 13, 17]
