"""The Gauss–Newton matrix: by hand, where it is the Hessian, and what has none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin import Elementwise, EmpiricalLoss, FunctionObjective, GaussNewton, Identity
from flatmin.sharpness import hessian_trace, per_layer, spectral_density, top_eigenvalues
from flatmin.symmetry import find_scalings, rescale

Loss = Callable[[Tensor, Tensor], Tensor]


def network(*, middle: nn.Module, outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), middle, nn.Linear(5, outputs)).double()


def points(count: int = 12) -> Tensor:
    return torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def random_like(w: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(t.shape, dtype=t.dtype, generator=generator) for n, t in w.items()}


def test_of_a_linear_network_it_is_the_hessian() -> None:
    model = nn.Linear(4, 3).double()
    loss = EmpiricalLoss(model, F.cross_entropy, [(points(), torch.arange(12) % 3)])
    w = loss.params
    vector = random_like(w, 2)
    for name, t in GaussNewton(loss).hvp(w, vector).items():
        torch.testing.assert_close(t, loss.hvp(w, vector)[name], atol=1e-14, rtol=0)


def test_where_all_is_fitted_it_is_the_hessian() -> None:
    model = network(middle=nn.Tanh())
    x = points()
    fitted = EmpiricalLoss(model, F.mse_loss, [(x, model(x).detach())])
    missed = EmpiricalLoss(model, F.mse_loss, [(x, model(x).detach() + 1)])
    w = fitted.params
    vector = random_like(w, 2)
    bend, other = GaussNewton(fitted).hvp(w, vector), GaussNewton(missed).hvp(w, vector)
    for name, t in fitted.hvp(w, vector).items():
        torch.testing.assert_close(bend[name], t, atol=1e-13, rtol=0)
        torch.testing.assert_close(other[name], t, atol=1e-13, rtol=0)  # G knows no targets here
    assert not torch.allclose(missed.hvp(w, vector)["0.weight"], other["0.weight"])


def test_it_does_not_depend_on_the_batches() -> None:
    model, x, y = network(middle=nn.Tanh()), points(), torch.arange(12) % 3
    whole = EmpiricalLoss(model, F.cross_entropy, [(x, y)])
    parts = EmpiricalLoss(model, F.cross_entropy, [(x[:5], y[:5]), (x[5:], y[5:])])
    w = whole.params
    vector = random_like(w, 2)
    one, two = GaussNewton(whole).hvp(w, vector), GaussNewton(parts).hvp(w, vector)
    assert all(torch.allclose(one[n], two[n], atol=1e-14, rtol=0) for n in w)


def test_rescaling_is_felt_by_identity_alone() -> None:
    model, x = network(middle=nn.ReLU()), points()
    scalings = find_scalings(model, x)
    values: dict[str, list[float]] = {"exact": [], "plain": [], "density": []}
    for _ in range(3):
        loss = EmpiricalLoss(model, F.cross_entropy, [(x, torch.arange(12) % 3)])
        curvature, w = GaussNewton(loss), loss.params
        values["exact"].append(top_eigenvalues(curvature, w, scale=Elementwise()).value)
        values["plain"].append(top_eigenvalues(curvature, w, scale=Identity()).value)
        density = spectral_density(curvature, w, samples=2, steps=4)
        assert min(density.nodes) >= -1e-12 * max(density.nodes)
        values["density"].append(density.value)
        rescale(model, scalings, scalings.sample(torch.Generator().manual_seed(0)))
    for name in ("exact", "density"):
        assert max(values[name]) - min(values[name]) <= 1e-10 * max(values[name])
    assert max(values["plain"]) > 1.1 * min(values["plain"])


def test_layer_by_layer() -> None:
    model, x = network(middle=nn.Tanh()), points()
    loss = EmpiricalLoss(model, F.cross_entropy, [(x, torch.arange(12) % 3)])
    found = per_layer(top_eigenvalues, GaussNewton(loss), loss.params)
    whole = top_eigenvalues(GaussNewton(loss), loss.params).value
    assert set(found) == {"0", "2"}
    assert all(0 < each.value < whole for each in found.values())


def test_a_loss_that_is_linear_in_the_outputs_has_none() -> None:
    model, x = network(middle=nn.Tanh()), points()
    loss = EmpiricalLoss(model, lambda o, t: (o * t).mean(), [(x, torch.ones(12, 3).double())])
    found = hessian_trace(GaussNewton(loss), loss.params, samples=2)
    assert found.value == 0.0
    assert "zero in every direction" in found.warnings[0]
    assert hessian_trace(loss, loss.params, samples=2).value != 0.0


def test_what_is_refused() -> None:
    model, x = network(middle=nn.Tanh()), points()

    def penalized(outputs: Tensor, targets: Tensor) -> Tensor:
        decay = sum(p.square().sum() for p in model.parameters())
        return F.cross_entropy(outputs, targets) + 0.1 * decay

    loss = EmpiricalLoss(model, penalized, [(x, torch.arange(12) % 3)])
    with pytest.raises(ValueError, match="needs a loss of the outputs alone"):
        top_eigenvalues(GaussNewton(loss), loss.params)
    away = EmpiricalLoss(
        model, lambda o, t: F.cross_entropy(o.detach(), t), [(x, torch.arange(12) % 3)]
    )
    with pytest.raises(ValueError, match="does not depend on the parameters through the outputs"):
        top_eigenvalues(GaussNewton(away), away.params)
    with pytest.raises(TypeError, match="takes an EmpiricalLoss, got FunctionObjective"):
        GaussNewton(FunctionObjective(lambda w: w["x"].sum()))  # type: ignore[arg-type]


class OwnLoss(nn.Module):
    """As the models of transformers: the loss is among the outputs, here with a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(middle=nn.Tanh())
        self.heat = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        out = self.net(x)
        return {"loss": F.cross_entropy(out, labels), "logits": out, "heat": self.heat * 2.0}


def test_a_loss_that_the_network_returns_is_refused() -> None:
    """It is linear in itself; before, the matrix was zero."""
    model, x, y = OwnLoss(), points(), torch.arange(12) % 3
    batches = [({"x": x, "labels": y}, y)]
    losses: list[Callable[[dict[str, Tensor], Tensor], Tensor]] = [
        lambda o, t: o["loss"],
        lambda o, t: 0.5 * o["loss"] + F.cross_entropy(o["logits"], t),
    ]
    for each in losses:
        own = EmpiricalLoss(model, each, batches)
        with pytest.raises(ValueError, match="the loss is itself one of them"):
            top_eigenvalues(GaussNewton(own), own.params)
    outside = EmpiricalLoss(
        model, lambda o, t: F.cross_entropy(o["logits"] / o["heat"], t), batches
    )
    assert top_eigenvalues(GaussNewton(outside), outside.params).value > 0.0
