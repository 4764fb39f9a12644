"""The mean loss over a data set: exact, the same however batched, and the same each time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.utils.data import DataLoader, TensorDataset

from flatmin import EmpiricalLoss, FunctionObjective

# torch.func.hessian, the oracle, still passes through torch.jit when it is first used.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

N = 24


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A perceptron from 3 to 4."""
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).to(dtype)


def examples(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Points and labels."""
    return torch.randn(N, 3, dtype=dtype), torch.randint(4, (N,))


def split(data: tuple[Tensor, Tensor], sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    """The same examples in batches of these sizes."""
    return list(zip(data[0].split(sizes), data[1].split(sizes), strict=True))


def far(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference, relative to the largest number."""
    largest = max(t.abs().max() for t in b.values())
    return float(max((a[n] - b[n]).abs().max() for n in b) / largest)


def test_value_gradient_and_hessian_are_those_of_the_mean() -> None:
    model, data = network(), examples()
    loss = EmpiricalLoss(model, F.cross_entropy, split(data, [10, 10, 4]))
    w = {name: torch.randn_like(t) for name, t in loss.params.items()}

    def mean(params: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(model, params, (data[0],)), data[1])

    value, grad = loss.value_and_grad(w)
    torch.testing.assert_close(value, mean(w), rtol=1e-13, atol=0)
    torch.testing.assert_close(loss.value(w), value, rtol=1e-14, atol=0)
    assert far(grad, torch.func.grad(mean)(w)) < 1e-13
    vector = {name: torch.randn_like(t) for name, t in w.items()}
    blocks = hessian(mean)(w)
    dense = {
        row: sum(
            torch.tensordot(blocks[row][column], vector[column], dims=vector[column].ndim)
            for column in w
        )
        for row in w
    }
    assert far(loss.hvp(w, vector), dense) < 1e-12


@pytest.mark.parametrize("sizes", [[24], [1] * 24, [7, 17], [16, 8], [23, 1]])
def test_batching_does_not_matter(sizes: list[int]) -> None:
    model, data = network(), examples()
    whole = EmpiricalLoss(model, F.cross_entropy, [data])
    parts = EmpiricalLoss(model, F.cross_entropy, split(data, sizes))
    w, v = whole.params, {n: torch.randn_like(t) for n, t in whole.params.items()}
    assert abs(whole.value(w) - parts.value(w)) <= 1e-10 * whole.value(w)
    assert far(parts.value_and_grad(w)[1], whole.value_and_grad(w)[1]) < 1e-10
    assert far(parts.hvp(w, v), whole.hvp(w, v)) < 1e-10


@pytest.mark.slow
def test_single_precision_sums_in_double() -> None:
    """Many batches add no rounding: only that of the outputs is left."""
    model, data = network(torch.float32), examples(torch.float32)
    repeated = EmpiricalLoss(model, F.cross_entropy, split(data, [1] * N) * 20)
    once = EmpiricalLoss(model, F.cross_entropy, split(data, [1] * N))
    assert once.value({}).dtype == torch.float64
    assert abs(repeated.value({}) - once.value({})) < 1e-13
    outputs = torch.cat([model(x) for x in data[0].split(1)])
    torch.testing.assert_close(
        once.value({}), F.cross_entropy(outputs.double(), data[1]).detach(), rtol=1e-15, atol=0
    )
    grad = once.value_and_grad(once.params)[1]
    assert {t.dtype for t in grad.values()} == {torch.float32}
    assert far(repeated.value_and_grad(once.params)[1], grad) < 1e-7


def test_double_loss_of_single_outputs_is_sharper_than_single() -> None:
    """A small rise keeps its digits: its error is a tenth of that of a float32 loss, or less."""
    model, data = network(torch.float32), examples(torch.float32)
    loss = EmpiricalLoss(model, F.cross_entropy, [data])
    exact = EmpiricalLoss(network(), F.cross_entropy, [(data[0].double(), data[1])])
    w = loss.params
    up = {n: t * (1 + 1e-4) for n, t in w.items()}
    wide, wide_up = ({n: t.double() for n, t in point.items()} for point in (w, up))
    rise = exact.value(wide_up) - exact.value(wide)
    single = [F.cross_entropy(functional_call(model, p, (data[0],)), data[1]) for p in (up, w)]
    error = abs(loss.value(up) - loss.value(w) - rise)
    assert error < 0.1 * abs((single[0] - single[1]).detach() - rise)


def test_loss_functions_with_weights_follow() -> None:
    """A module is widened; a plain function that cannot take float64 is told how."""
    model, data = network(torch.float32), examples(torch.float32)
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    module = nn.CrossEntropyLoss(weight=weight, label_smoothing=0.1)
    loss = EmpiricalLoss(model, module, [data])
    torch.testing.assert_close(loss.value({}).float(), module(model(data[0]), data[1]).detach())
    assert module.weight.dtype == torch.float32
    with pytest.raises(RuntimeError) as caught:
        EmpiricalLoss(model, lambda o, t: F.cross_entropy(o, t, weight=weight), [data])
    assert "outputs.float()" in caught.value.__notes__[0]
    plain = EmpiricalLoss(model, lambda o, t: F.cross_entropy(o.float(), t, weight=weight), [data])
    assert plain.value({}).dtype == torch.float64


def test_regression_targets() -> None:
    model = nn.Linear(3, 2)
    data = (torch.randn(5, 3), torch.randn(5, 2))
    loss = EmpiricalLoss(model, F.mse_loss, split(data, [3, 2]))
    torch.testing.assert_close(loss.value({}).float(), F.mse_loss(model(data[0]), data[1]).detach())


class TwoInputs(nn.Module):
    """A bilinear form."""

    def __init__(self) -> None:
        super().__init__()
        self.form = nn.Bilinear(2, 3, 4)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        out: Tensor = self.form(left, right)
        return out


def test_several_inputs_by_position_or_by_name() -> None:
    model, (left, right), labels = (
        TwoInputs(),
        (torch.randn(6, 2), torch.randn(6, 3)),
        torch.arange(6) % 4,
    )
    one = EmpiricalLoss(model, F.cross_entropy, [((left, right), labels)])
    two = EmpiricalLoss(model, F.cross_entropy, [({"left": left, "right": right}, labels)])
    expected = F.cross_entropy(model(left, right).double(), labels).detach()
    assert one.value({}) == two.value({}) == expected
    for loss in (one, two):
        parts = list(loss.micro(4))
        assert [part.num_examples for part in parts] == [4, 2]
        mean = sum(part.value({}) * part.num_examples for part in parts) / 6
        torch.testing.assert_close(mean, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("m", [1, 5, 8, 24, 100])
def test_micro_regroups_across_batches(m: int) -> None:
    model, data = network(), examples()
    loss = EmpiricalLoss(model, F.cross_entropy, split(data, [7, 7, 7, 3]))
    parts = list(loss.micro(m))
    sizes = [part.num_examples for part in parts]
    assert sizes == [len(chunk) for chunk in data[1].split(m)]
    joined = [batch for part in parts for batch in part.batches]
    assert torch.equal(torch.cat([inputs for inputs, _ in joined]), data[0])
    assert torch.equal(torch.cat([targets for _, targets in joined]), data[1])
    with pytest.raises(ValueError, match="m must be at least 1"):
        next(loss.micro(0))


def test_a_point_elsewhere_and_a_part_of_the_parameters() -> None:
    """Parameters that are not named keep their own values; gradients cover the names alone."""
    model, data = network(), examples()
    loss = EmpiricalLoss(model, F.cross_entropy, [data])
    part = {"0.bias": torch.randn(5, dtype=torch.float64)}
    value, grad = loss.value_and_grad(part)
    assert value == loss.value({**loss.params, **part})
    assert list(grad) == ["0.bias"]
    assert far(grad, {"0.bias": loss.value_and_grad({**loss.params, **part})[1]["0.bias"]}) == 0.0


def test_frozen_parameters_are_no_part_of_the_point() -> None:
    model = network()
    model[0].weight.requires_grad_(False)  # type: ignore[index]
    assert "0.weight" not in EmpiricalLoss(model, F.cross_entropy, [examples()]).params


def test_tied_parameters_move_together() -> None:
    model = nn.Sequential(
        nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False)
    ).double()
    model[2].weight = model[0].weight
    data = (torch.randn(5, 3, dtype=torch.float64), torch.arange(5) % 3)
    loss = EmpiricalLoss(model, F.cross_entropy, [data])
    assert list(loss.params) == ["0.weight"]
    w = torch.randn(3, 3, dtype=torch.float64)
    expected = F.cross_entropy(torch.tanh(data[0] @ w.T) @ w.T, data[1])
    torch.testing.assert_close(loss.value({"0.weight": w}), expected)


def test_attention_can_be_differentiated_twice() -> None:
    """Its fused kernels cannot; the Hessian goes around them."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(8, 24)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.mix(x).unflatten(-1, (3, 2, 4)).movedim(-3, 0).transpose(-3, -2)
            return F.scaled_dot_product_attention(q, k, v).mean((-3, -2))

    model = Attention().double()
    loss = EmpiricalLoss(model, F.cross_entropy, [(torch.randn(4, 5, 8).double(), torch.arange(4))])
    w, v = loss.params, {n: torch.randn_like(t) for n, t in loss.params.items()}
    ahead, behind = (loss.value_and_grad({n: w[n] + h * v[n] for n in w})[1] for h in (1e-5, -1e-5))
    slope = {n: (ahead[n] - behind[n]) / 2e-5 for n in w}
    assert far(loss.hvp(w, v), slope) < 1e-7


def test_batch_statistics_leave_no_trace_between_batches() -> None:
    """In training mode each batch sees the buffers as they are in the model."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    data = examples()
    loss = EmpiricalLoss(model, F.cross_entropy, split(data, [12, 12]))
    model.zero_grad()
    before = model[1].running_mean.clone()
    expected = (
        F.cross_entropy(model(data[0][:12]), data[1][:12])
        + F.cross_entropy(model(data[0][12:]), data[1][12:])
    ) / 2
    assert not torch.equal(before, model[1].running_mean)
    model[1].running_mean.copy_(before)
    torch.testing.assert_close(loss.value({}), expected.detach())
    assert torch.equal(model[1].running_mean, before)


class Seen(nn.Module):
    """Notes the arithmetic it is called in."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)
        self.notes: list[object] = []

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        self.notes.append(
            (out.dtype, torch.is_autocast_enabled("cpu"), torch.backends.cudnn.benchmark)
        )
        self.notes.append(torch.backends.cuda.matmul.fp32_precision)
        return out


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_reduced_precision_is_off_inside_and_back_outside(precision: str) -> None:
    model = Seen()
    loss = EmpiricalLoss(model, F.cross_entropy, [examples(torch.float32)])
    model.notes.clear()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            loss.value_and_grad(loss.params)
            assert torch.is_autocast_enabled("cpu")
        assert model.notes == [(torch.float32, False, False), "ieee"]
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")


class Shrinking:
    """Data that lose their last batch once they have been read."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]], passes: int) -> None:
        self.batches, self.passes = batches, passes

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes -= 1
        return iter(self.batches if self.passes >= 0 else self.batches[:-1])


@pytest.mark.parametrize("passes", [1, 2, 3, 4])
def test_data_that_shrink_are_noticed(passes: int) -> None:
    data = Shrinking(split(examples(), [20, 4]), passes)
    with pytest.raises(ValueError, match="data changed between passes: 24 examples, then 20"):
        loss = EmpiricalLoss(network(), F.cross_entropy, data)
        loss.value({})
        loss.value({})


class Growing:
    """Other examples at every pass, in the same number."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield examples()


def test_what_changes_between_calls_is_refused() -> None:
    data = examples()
    dropout = nn.Sequential(network(), nn.Dropout(0.5)).double()
    shuffled = DataLoader(TensorDataset(*data), batch_size=8, shuffle=True)
    for model, batches in ((dropout, [data]), (network(), shuffled), (network(), Growing())):
        with pytest.raises(ValueError, match="must be the same each time"):
            EmpiricalLoss(model, F.cross_entropy, batches)
    dropout.eval()
    EmpiricalLoss(dropout, F.cross_entropy, [data])
    EmpiricalLoss(network(), F.cross_entropy, DataLoader(TensorDataset(*data), batch_size=8))


def test_dropout_is_noticed_whatever_was_seeded() -> None:
    class Seeded(nn.Dropout):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    torch.manual_seed(7)
    with pytest.raises(ValueError, match="switch off dropout"):
        EmpiricalLoss(nn.Sequential(network(), Seeded(0.1)), F.cross_entropy, [examples()])


def test_a_loss_that_is_not_finite_is_left_to_the_measure() -> None:
    model = network()
    nn.init.constant_(model[0].weight, math.nan)  # type: ignore[index]
    assert EmpiricalLoss(model, F.cross_entropy, [examples()]).value({}).isnan()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda d: EmpiricalLoss(F.relu, F.cross_entropy, [d]), TypeError, "torch.nn.Module"),
        (lambda d: EmpiricalLoss(network(), F.cross_entropy, iter([d])), TypeError, "only once"),
        (lambda d: EmpiricalLoss(network(), F.cross_entropy, (b for b in [d])), TypeError, "list"),
        (lambda d: EmpiricalLoss(network(), F.cross_entropy, [d[0]]), TypeError, "must be a pair"),
        (
            lambda d: EmpiricalLoss(network(), F.cross_entropy, [(d[0], 3)]),
            TypeError,
            "must be a pair",
        ),
        (
            lambda d: EmpiricalLoss(network(), F.cross_entropy, []),
            ValueError,
            "at least one example",
        ),
        (
            lambda d: EmpiricalLoss(network(), nn.CrossEntropyLoss(reduction="none"), [d]),
            ValueError,
            "reduction='mean'",
        ),
        (
            lambda d: EmpiricalLoss(network(), F.cross_entropy, [d]).value({"2.wait": d[0]}),
            ValueError,
            "no parameter named '2.wait'",
        ),
        (
            lambda d: EmpiricalLoss(network(), F.cross_entropy, [d]).value_and_grad({}),
            ValueError,
            "at least one tensor",
        ),
        (
            lambda d: EmpiricalLoss(network(), lambda o, t: o.detach().mean(), [d]).hvp(
                dict(network().named_parameters()), dict(network().named_parameters())
            ),
            ValueError,
            "nothing detaches them",
        ),
    ],
)
def test_misuse(make: Callable[..., object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(examples())


def test_a_function_that_is_linear_has_no_curvature() -> None:
    line = FunctionObjective(lambda w: w["x"].sum())
    w = {"x": torch.ones(3)}
    assert line.hvp(w, w)["x"].tolist() == [0.0, 0.0, 0.0]
    assert line.value_and_grad(w)[1]["x"].tolist() == [1.0, 1.0, 1.0]


def test_a_parameter_that_is_not_used_has_gradient_zero() -> None:
    half = FunctionObjective(lambda w: w["x"].square().sum())
    _, grad = half.value_and_grad({"x": torch.ones(2), "y": torch.ones(3)})
    assert grad["y"].tolist() == [0.0, 0.0, 0.0]
