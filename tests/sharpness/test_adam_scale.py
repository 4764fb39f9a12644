"""Adam's geometry: the step it would take, its eigenvalues by a dense matrix, and refusals."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call

from flatmin import SAM, EmpiricalLoss, FunctionObjective
from flatmin.sharpness import AdamScale, critical_sharpness, gradient_norm, top_eigenvalues

KINDS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.0, 0.99), eps=1e-6),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.0, 0.99), weight_decay=0.0),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.0, 0.9), amsgrad=True),
}


def trained(kind: str, steps: int = 5) -> tuple[nn.Module, torch.optim.Optimizer, EmpiricalLoss]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(10, 3, dtype=torch.float64), torch.arange(10) % 2
    optimizer = KINDS[kind](model.parameters())
    for step in range(steps):
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) / (step + 1)).backward()
        optimizer.step()
    return model, optimizer, EmpiricalLoss(model, F.cross_entropy, [(x, y)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_adam_is_steepest_descent_in_it(kind: str) -> None:
    """Without momentum a step with the gradient of before moves by lr T² g, with the new v."""
    model, optimizer, _ = trained(kind)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer.step()
    t = AdamScale(optimizer, model)(before)
    for name, parameter in model.named_parameters():
        expected = before[name] - 0.01 * t[name] ** 2 * parameter.grad
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-14, rtol=0)


def test_the_preconditioned_sharpness_of_a_dense_hessian() -> None:
    model, optimizer, loss = trained("adam")
    (x, y), w = loss.batches[0], loss.params  # type: ignore[index]
    sizes = [t.numel() for t in w.values()]

    def value(numbers: Tensor) -> Tensor:
        pieces = torch.split(numbers, sizes)
        state = {n: p.view(w[n].shape) for n, p in zip(w, pieces, strict=True)}
        return F.cross_entropy(functional_call(model, state, (x,)), y)

    numbers = torch.cat([t.flatten() for t in w.values()])
    moments = [optimizer.state[p]["exp_avg_sq"].flatten() for p in model.parameters()]
    p = (torch.cat(moments) / (1 - 0.99**5)).sqrt() + 1e-6
    exact = torch.linalg.eigvals(hessian(value, numbers) / p[:, None]).real.max().item()
    scale = AdamScale(optimizer, model)
    assert top_eigenvalues(loss, w, scale=scale).value == pytest.approx(exact, rel=1e-10)
    found = critical_sharpness(loss, w, scale=scale, tolerance=1e-9)
    assert 0 < found.value < 2 * exact


def test_at_the_threshold_frozen_adam_neither_grows_nor_shrinks() -> None:
    """With momentum, on a quadratic: (2 + 2 β₁) / ((1 − β₁) lr)."""
    model = nn.Linear(2, 1, bias=False).double()
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.999), eps=0.0)
    model.weight.grad = torch.tensor([[3.0, 0.5]], dtype=torch.float64)
    optimizer.step()
    scale = AdamScale(optimizer, model)
    bend = torch.tensor([7.0, 0.1], dtype=torch.float64)
    bowl = FunctionObjective(lambda w: (bend * w["weight"].square()).sum() / 2)
    sharpness = top_eigenvalues(bowl, {"weight": torch.ones(1, 2).double()}, scale=scale).value
    squares = scale({"weight": torch.ones(1, 2).double()})["weight"][0] ** 2
    for factor, grows in ((0.99, False), (1.01, True)):
        lr = factor * 38 / sharpness
        x, m = torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
        for _ in range(3000):
            m = 0.9 * m + 0.1 * bend * x
            x = x - lr * squares * m
        assert bool((x.abs() > 1e3).any()) == grows


def test_it_is_a_copy_and_serves_parts_and_wrappers() -> None:
    model, optimizer, loss = trained("adam")
    scale = AdamScale(optimizer, model)
    before = gradient_norm(loss, loss.params, scale=scale).value
    wrapped = AdamScale(SAM(optimizer, rho=0.1), model)
    assert gradient_norm(loss, loss.params, scale=wrapped).value == before
    part = {"2.weight": loss.params["2.weight"]}
    assert 0 < gradient_norm(loss, part, scale=scale).value < before
    w = {n: t.clone() for n, t in loss.params.items()}
    optimizer.step()
    assert gradient_norm(loss, w, scale=scale).value == before


def test_what_is_refused() -> None:
    model, optimizer, loss = trained("adam")
    fresh = copy.deepcopy(model)
    cases: list[tuple[type[Exception], str, Any]] = [
        (TypeError, "Adam or AdamW, whose state it reads, got SGD", torch.optim.SGD),
        (TypeError, "got NAdam", torch.optim.NAdam),
        (ValueError, "has taken no step with a parameter of this model", torch.optim.Adam),
    ]
    for kind, message, make in cases:
        with pytest.raises(kind, match=message):
            AdamScale(make(fresh.parameters()), fresh)
    with pytest.raises(ValueError, match="no step with a parameter of this model"):
        AdamScale(optimizer, fresh)
    with pytest.raises(TypeError, match="model must be a torch"):
        AdamScale(optimizer, loss)  # type: ignore[arg-type]
    scale = AdamScale(optimizer, model)
    with pytest.raises(ValueError, match="no state for 'x', so its scale there is not known"):
        scale({"x": torch.ones(2)})
    with pytest.raises(ValueError, match=r"shape \(4,\), the parameter \(3, 4\)"):
        scale({"0.bias": torch.ones(3, 4)})
    still = nn.Linear(1, 1, bias=False)
    adam = torch.optim.Adam(still.parameters(), eps=0.0)
    still.weight.grad = torch.zeros(1, 1)
    adam.step()
    with pytest.raises(ValueError, match="must be positive and finite, and that of 'weight'"):
        AdamScale(adam, still)
