"""Value, gradient and Hessian are of one function, whatever the model does on the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from flatmin import Ball, EmpiricalLoss, FunctionObjective
from flatmin.sharpness import (
    hessian_trace,
    m_sharpness,
    one_step_sharpness,
    top_eigenvalues,
    worst_case_sharpness,
)

Point = dict[str, Tensor]
Block = Callable[[nn.Module, Tensor], Tensor]


def flat(tree: Point) -> Tensor:
    """All numbers in a row."""
    return torch.cat([t.flatten() for t in tree.values()])


def slopes(objective: EmpiricalLoss, at: Point, along: Point) -> tuple[float, Tensor]:
    """First and second derivative along a direction, from values and gradients beside the point."""
    h = 1e-5
    up, down = ({n: at[n] + s * h * along[n] for n in at} for s in (1, -1))
    rise = (objective.value(up) - objective.value(down)).item() / (2 * h)
    bend = (flat(objective.value_and_grad(up)[1]) - flat(objective.value_and_grad(down)[1])) / (
        2 * h
    )
    return rise, bend


class Checkpointed(nn.Module):
    """A perceptron whose middle is computed by ``block``."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 6)
        self.middle = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh())
        self.last = nn.Linear(6, 3)
        self.block = block
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.block(self.middle, self.first(x)))
        return out


def data() -> tuple[Tensor, Tensor]:
    """Twelve points of three classes."""
    source = torch.Generator().manual_seed(1)
    x = torch.randn(12, 4, generator=source, dtype=torch.float64)
    return x, torch.randint(3, (12,), generator=source)


CHECKPOINTS: dict[str, Block] = {
    "not reentrant": lambda f, x: checkpoint(f, x, use_reentrant=False),
    "reentrant": lambda f, x: checkpoint(f, x, use_reentrant=True),
    "in two parts": lambda f, x: checkpoint_sequential(f, 2, x, use_reentrant=True),
    "nested": lambda f, x: checkpoint(
        lambda z: checkpoint(f, z, use_reentrant=False), x, use_reentrant=False
    ),
}


@pytest.mark.parametrize("block", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_what_is_computed_again_in_the_backward_pass_meets_the_point(block: Block) -> None:
    """Derivatives away from the model's own weights are those without checkpoints."""
    plain, again = (
        EmpiricalLoss(Checkpointed(b), F.cross_entropy, [data()])
        for b in (lambda f, x: f(x), block)
    )
    w = {n: t + 0.3 for n, t in plain.params.items()}
    v = {n: torch.randn_like(t) for n, t in w.items()}
    assert torch.equal(again.value(w), plain.value(w))
    torch.testing.assert_close(
        flat(again.value_and_grad(w)[1]), flat(plain.value_and_grad(w)[1]), rtol=1e-12, atol=1e-15
    )
    torch.testing.assert_close(flat(again.hvp(w, v)), flat(plain.hvp(w, v)), rtol=1e-12, atol=1e-15)
    assert worst_case_sharpness(again, w, Ball(1.0)).value == pytest.approx(
        worst_case_sharpness(plain, w, Ball(1.0)).value, rel=1e-12
    )


def test_a_reentrant_checkpoint_of_the_inputs_loses_no_gradient() -> None:
    """Outside, torch gives none: the inputs ask for none, so it makes no graph."""

    class First(Checkpointed):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = checkpoint(super().forward, x, use_reentrant=True)
            return out

    first = EmpiricalLoss(First(lambda f, x: f(x)), F.cross_entropy, [data()])
    plain = EmpiricalLoss(Checkpointed(lambda f, x: f(x)), F.cross_entropy, [data()])
    got, expected = (flat(o.value_and_grad(o.params)[1]) for o in (first, plain))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-15)


class Recompute(torch.autograd.Function):
    """A checkpoint as libraries wrote it before autograd had one: a backward pass in another."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, f: nn.Module, x: Tensor) -> Tensor:
        ctx.f, ctx.x = f, x  # type: ignore[attr-defined]
        with torch.no_grad():
            out: Tensor = f(x)
        return out

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[None, Tensor]:
        x = ctx.x.detach().requires_grad_()  # type: ignore[attr-defined]
        with torch.enable_grad():
            out = ctx.f(x)  # type: ignore[attr-defined]
        torch.autograd.backward(out, grad)
        return None, x.grad


def test_a_backward_pass_inside_another_is_refused() -> None:
    model = Checkpointed(lambda f, x: Recompute.apply(f, x))
    loss = EmpiricalLoss(model, F.cross_entropy, [data()])
    with pytest.raises(RuntimeError, match="runs another inside"):
        loss.value_and_grad(loss.params)
    assert all(p.grad is None for p in model.parameters())


class Masked(nn.Module):
    """A transformer encoder, as torch has it, over sequences that are padded."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.last = nn.Embedding(9, 8), nn.Linear(8, 3)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encode = nn.TransformerEncoder(layer, 1)
        self.double().eval()

    def forward(self, ids: Tensor) -> Tensor:
        codes = self.encode(self.embed(ids), src_key_padding_mask=ids == 0)
        out: Tensor = self.last(codes.mean(1))
        return out


def test_the_fast_path_of_attention_is_no_second_function() -> None:
    ids = torch.randint(1, 9, (8, 6), generator=torch.Generator().manual_seed(0))
    ids[:4, 3:] = 0
    model, labels = Masked(), torch.arange(8) % 3
    # With gradients, torch takes the ordinary path: that is the function that can be measured.
    expected = F.cross_entropy(model(ids), labels).detach()
    assert torch.backends.mha.get_fastpath_enabled()
    loss = EmpiricalLoss(model, F.cross_entropy, [(ids, labels)])
    assert loss.value(loss.params).item() == pytest.approx(expected.item(), rel=1e-14)
    assert loss.value_and_grad(loss.params)[0] == loss.value(loss.params)
    v = {n: torch.randn_like(t) for n, t in loss.params.items()}
    rise, bend = slopes(loss, loss.params, v)
    grad = flat(loss.value_and_grad(loss.params)[1])
    assert torch.dot(grad, flat(v)).item() == pytest.approx(rise, rel=1e-6)
    assert torch.dist(flat(loss.hvp(loss.params, v)), bend) < 1e-6 * bend.norm()
    ball = Ball(0.01)
    one, worst = (f(loss, loss.params, ball) for f in (one_step_sharpness, worst_case_sharpness))
    assert 0.0 < one.value <= worst.value
    assert torch.backends.mha.get_fastpath_enabled()


class Branching(nn.Module):
    """Another function where no gradients are wanted."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3).double()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out if torch.is_grad_enabled() else out * (1.0 + self.by)


@pytest.mark.parametrize("by", [1.0, 1e-3, 1e-9])
def test_another_function_without_gradients_is_refused(by: float) -> None:
    with pytest.raises(ValueError, match="one function with and without gradients"):
        EmpiricalLoss(Branching(by), F.cross_entropy, [data()])


def test_rounding_is_no_other_function() -> None:
    EmpiricalLoss(Branching(1e-15), F.cross_entropy, [data()])
    EmpiricalLoss(Branching(1e-6).float(), F.cross_entropy, [(data()[0].float(), data()[1])])


def test_dropout_where_gradients_are_wanted_is_refused() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.layer(x), 0.5, training=torch.is_grad_enabled())

    with pytest.raises(ValueError, match="one function with and without gradients"):
        EmpiricalLoss(Dropping(), F.cross_entropy, [data()])


def test_a_function_is_always_evaluated_as_for_a_gradient() -> None:
    def bowl(w: Point) -> Tensor:
        loss = w["x"].square().sum()
        return loss if torch.is_grad_enabled() and w["x"].requires_grad else loss + 1.0

    loss, w = FunctionObjective(bowl), {"x": torch.ones(2)}
    with torch.no_grad():
        assert loss.value(w) == loss.value_and_grad(w)[0] == 2.0
        assert not loss.value(w).requires_grad


def compiled_whole(model: nn.Module) -> nn.Module:
    whole: nn.Module = torch.compile(model, backend="aot_eager")  # type: ignore[assignment]
    return whole


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="aot_eager")
    return model


def compiled_inside(model: nn.Module) -> nn.Module:
    model.middle = torch.compile(model.middle, backend="aot_eager")
    return model


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("how", [compiled_whole, compiled_in_place, compiled_inside])
def test_compiled_networks_have_a_hessian(how: Callable[[nn.Module], nn.Module]) -> None:
    plain = EmpiricalLoss(Checkpointed(lambda f, x: f(x)), F.cross_entropy, [data()])
    loss = EmpiricalLoss(how(Checkpointed(lambda f, x: f(x))), F.cross_entropy, [data()])
    names = zip(loss.params, plain.params, strict=True)
    w = {n: plain.params[m] + 0.1 for n, m in names}
    v = {n: torch.ones_like(t) for n, t in w.items()}
    plain_w, plain_v = (dict(zip(plain.params, t.values(), strict=True)) for t in (w, v))
    torch.testing.assert_close(
        flat(loss.hvp(w, v)), flat(plain.hvp(plain_w, plain_v)), rtol=1e-12, atol=1e-15
    )


def test_inference_mode_around_a_measure() -> None:
    """Also where network, inputs and points were made in it."""
    x, y = data()
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
        inputs = x + 0.0
        loss = EmpiricalLoss(model, F.cross_entropy, [(inputs, y)])
        w = {n: t + 0.0 for n, t in loss.params.items()}
        found = (
            one_step_sharpness(loss, w, Ball(0.1)).value,
            m_sharpness(loss, w, Ball(0.1), m=5).value,
            hessian_trace(loss, w, samples=3).value,
            top_eigenvalues(loss, w).value,
        )
        bowl = FunctionObjective(lambda w: w["x"].pow(4).sum())
        assert hessian_trace(bowl, {"x": torch.ones(2)}, samples=2).value == 24.0
    ordinary = {n: t.clone() for n, t in w.items()}

    def mean(params: Point) -> Tensor:
        return F.cross_entropy(functional_call(fresh, params, (x,)), y)

    fresh = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    expected = FunctionObjective(mean)
    assert found[0] == pytest.approx(
        one_step_sharpness(expected, ordinary, Ball(0.1)).value, rel=1e-12
    )
    assert found[2] == pytest.approx(hessian_trace(expected, ordinary, samples=3).value, rel=1e-12)
    assert found[3] == pytest.approx(top_eigenvalues(expected, ordinary).value, rel=1e-12)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm:FutureWarning")
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize(
    "wrap", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm], ids=["old", "new"]
)
def test_weight_normalization_has_a_hessian(
    wrap: Callable[..., nn.Module], dim: int | None
) -> None:
    """Of differences of gradients; torch's own, where it is fused, is not symmetric."""
    torch.manual_seed(0)
    model = nn.Sequential(wrap(nn.Linear(3, 2), dim=dim), nn.Tanh(), nn.Linear(2, 2)).double()
    data = (torch.randn(6, 3, dtype=torch.float64), torch.randint(2, (6,)))
    before = torch._weight_norm
    loss = EmpiricalLoss(model, F.cross_entropy, [data])
    w = loss.params
    vector = {name: torch.randn_like(t) for name, t in w.items()}
    sides = [
        loss.value_and_grad({n: t + step * vector[n] for n, t in w.items()})[1]
        for step in (1e-5, -1e-5)
    ]
    for name, t in loss.hvp(w, vector).items():
        torch.testing.assert_close(t, (sides[0][name] - sides[1][name]) / 2e-5, atol=1e-8, rtol=0)
    assert torch._weight_norm is before


class Recurrent(nn.Module):
    """A class for each row of steps, from the last state."""

    def __init__(self, cells: type[nn.RNNBase]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cells, self.head = cells(3, 3, batch_first=True), nn.Linear(3, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.cells(x)[0][:, -1])
        return out


@pytest.mark.parametrize("cells", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_recurrent_layers_follow_after_a_functional_call(
    cells: type[nn.RNNBase], factor: float
) -> None:
    """It leaves them with weights of others, which they notice in their next forward pass."""
    model, source = Recurrent(cells), torch.Generator().manual_seed(1)
    x = torch.randn(12, 5, 3, dtype=torch.float64, generator=source)
    y = torch.arange(12) % 3
    with torch.no_grad():
        others = {n: factor * p.detach() for n, p in model.named_parameters()}
        functional_call(model, others, (x,))
    loss = EmpiricalLoss(model, F.cross_entropy, [(x[:5], y[:5]), (x[5:], y[5:])])
    value, grad = loss.value_and_grad(loss.params)
    true = F.cross_entropy(model(x), y)
    torch.testing.assert_close(value, true.detach(), rtol=1e-13, atol=0)
    slopes = torch.autograd.grad(true, list(model.parameters()))
    torch.testing.assert_close(list(grad.values()), list(slopes), rtol=1e-11, atol=1e-15)


def test_parametrizations_follow_in_a_cache_of_the_callers_own() -> None:
    model, source = nn.Linear(4, 3).double(), torch.Generator().manual_seed(1)
    nn.utils.parametrizations.weight_norm(model)
    x = torch.randn(12, 4, dtype=torch.float64, generator=source)

    def rise() -> float:
        loss = EmpiricalLoss(model, F.cross_entropy, [(x, torch.arange(12) % 3)])
        return one_step_sharpness(loss, loss.params, Ball(0.1)).value

    expected = rise()
    with parametrize.cached():
        weight = model.weight
        assert rise() == expected
        assert model.weight is weight  # the cache is as it was, and on
    assert model.weight is not model.weight
