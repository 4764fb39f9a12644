"""What a forward pass writes never reaches the user's network, nor the next evaluation."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, prune

from flatmin import Ball, EmpiricalLoss, FunctionObjective
from flatmin.sharpness import hessian_trace, one_step_sharpness, top_eigenvalues

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm:FutureWarning")


def data() -> tuple[Tensor, Tensor]:
    """Twelve points of three classes."""
    source = torch.Generator().manual_seed(1)
    x = torch.randn(12, 4, generator=source, dtype=torch.float64)
    return x, torch.randint(3, (12,), generator=source)


def held(value: Any) -> Any:
    """Every tensor of a network's attributes: which one it is, and its numbers."""
    if isinstance(value, Tensor):
        return id(value), value._version, value.detach().clone()
    if isinstance(value, nn.Module):
        return held(value.__dict__)
    if isinstance(value, dict):
        return {key: held(part) for key, part in value.items()}
    if isinstance(value, list | tuple | deque):
        return [held(part) for part in value]
    return None


def same(a: Any, b: Any) -> bool:
    """Equal, bit by bit."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def measured(loss: EmpiricalLoss) -> list[float]:
    """Value, gradient and Hessian away from the network's own parameters."""
    w = {n: t + 0.1 for n, t in loss.params.items()}
    return [
        loss.value(w).item(),
        one_step_sharpness(loss, w, Ball(0.1)).value,
        hessian_trace(loss, w, samples=2).value,
        top_eigenvalues(loss, w, steps=3).value,
    ]


class Counting(nn.Module):
    """Counts, collects and keeps tensors in plain attributes of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3).double()
        self.calls = torch.zeros(())
        self.queue = deque([torch.zeros(3)], maxlen=4)
        self.kept: list[Tensor] = []
        self.by_name = {"mean": torch.zeros(3), "deep": [(torch.zeros(2), 1)]}
        self.last: Tensor | None = None
        self.hidden = [nn.BatchNorm1d(3).double()]  # in a plain list: not registered

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        self.calls += 1
        self.queue.append(out)
        self.kept.append(out)
        self.by_name["mean"] = out.mean(0)
        self.by_name["deep"][0][0].add_(1.0)
        self.last = self.newly_made = out
        self.hidden[0](out)
        return out * self.calls  # fresh at each evaluation, or the loss would change


class ChangingBuffers(nn.Module):
    """A buffer that is written, one that is replaced, one that is removed, one that is new."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3).double()
        for name in ("written", "replaced", "removed"):
            self.register_buffer(name, torch.ones(3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) * self.written.clone() * self.replaced
        self.written.mul_(2.0)
        self.replaced = self.replaced + 1.0
        del self.removed
        self.register_buffer("made", out.detach())
        return out


def weight_normed() -> nn.Module:
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))
    return model.double()


def pruned() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return nn.Sequential(prune.l1_unstructured(model[0], "weight", 0.5), *model[1:])


def spectral(normed: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(normed(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)).double()


class Recurrent(nn.Module):
    """Torch's own, which keeps its weights a second time, in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(1, 3, batch_first=True).double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cells(x.unsqueeze(-1))[0][:, -1]
        return out


WRITERS: dict[str, Callable[[], nn.Module]] = {
    "attributes": Counting,
    "buffers": ChangingBuffers,
    "weight norm": weight_normed,
    "pruned": pruned,
    "spectral norm": lambda: spectral(nn.utils.spectral_norm),
    "spectral norm, parametrized": lambda: spectral(parametrizations.spectral_norm),
    "recurrent": Recurrent,
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double(),
}


@pytest.mark.parametrize("make", WRITERS.values(), ids=WRITERS)
def test_nothing_that_a_network_holds_is_changed(make: Callable[[], nn.Module]) -> None:
    model = make()
    before, at = held(model), dict(model.named_parameters())
    loss = EmpiricalLoss(model, F.cross_entropy, [data()])
    first = measured(loss)
    assert same(held(model), before)
    assert measured(loss) == first
    with pytest.raises(ValueError, match="to match target"):  # and also where a pass fails
        EmpiricalLoss(model, lambda o, t: F.cross_entropy(o, t[:3]), [data()])
    assert same(held(model), before)
    assert all(p is at[name] and p.grad is None for name, p in model.named_parameters())


@pytest.mark.filterwarnings("error")
def test_the_comparison_notices() -> None:
    """Called in the ordinary way, the network does change."""
    model = Counting()
    before = held(model)
    model(data()[0])
    assert not same(held(model), before)


def test_what_a_network_counts_without_tensors_is_its_own() -> None:
    class Tally(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x)

    model = Tally(4, 3).double()
    EmpiricalLoss(model, F.cross_entropy, [data()])
    assert model.calls == 2


class Momentum(nn.Module):
    """A second encoder that follows the first in every forward pass."""

    def __init__(self, follow: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self.query = nn.Linear(4, 3).double()
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        nn.init.zeros_(self.key.weight)
        self.follow = follow

    @torch.no_grad()
    def update(self) -> None:
        for fast, slow in zip(self.query.parameters(), self.key.parameters(), strict=True):
            self.follow(fast, slow)

    def forward(self, x: Tensor) -> Tensor:
        self.update()
        out: Tensor = self.query(x) + self.key(x)
        return out


def in_place(fast: Tensor, slow: Tensor) -> None:
    slow.lerp_(fast, 0.1)


def behind_autograd(fast: Tensor, slow: Tensor) -> None:
    slow.data.mul_(0.9).add_(fast.data, alpha=0.1)


def rebound(fast: Tensor, slow: Tensor) -> None:
    slow.data = slow.data * 0.9 + fast.data * 0.1


class Renormed(nn.Module):
    """An embedding that shortens the rows it looks up."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3, max_norm=0.5).double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.embed((x[:, 0] > 0).long())
        return out


UPDATES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "in place": (lambda: Momentum(in_place), "key.weight"),
    "through .data": (lambda: Momentum(behind_autograd), "key.weight"),
    "other .data": (lambda: Momentum(rebound), "key.weight"),
    "max_norm": (Renormed, "embed.weight"),
}


@pytest.mark.parametrize(("make", "name"), UPDATES.values(), ids=UPDATES)
def test_a_forward_pass_that_changes_parameters_is_refused(
    make: Callable[[], nn.Module], name: str
) -> None:
    """The numbers it computes are no function that its gradient belongs to."""
    model = make()
    before = held(model)
    with pytest.raises(ValueError, match=f"must not change parameters, but it changed '{name}'"):
        EmpiricalLoss(model, F.cross_entropy, [data()])
    assert same(held(model), before)


def test_an_embedding_is_refused_where_it_begins_to_shorten() -> None:
    model = Renormed()
    with torch.no_grad():
        model.embed.weight.mul_(0.4 / model.embed.weight.norm(dim=1, keepdim=True))
    loss = EmpiricalLoss(model, F.cross_entropy, [data()])
    assert one_step_sharpness(loss, loss.params, Ball(0.01)).value > 0.0
    with pytest.raises(ValueError, match=r"changed 'embed\.weight'"):
        one_step_sharpness(loss, loss.params, Ball(1.0))


def test_nan_in_a_parameter_is_no_change() -> None:
    model = nn.Linear(4, 3).double()
    nn.init.constant_(model.bias, torch.nan)
    assert EmpiricalLoss(model, F.cross_entropy, [data()]).value({}).isnan()


def test_data_that_are_written_into_are_the_callers_own() -> None:
    """By the model, by the loss function, and by a function of parameters."""

    class Standardizing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(1.0).div_(2.0))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        targets[targets == 255] = 0
        return F.cross_entropy(outputs, targets)

    x, y = data()
    y[:3] = 255
    kept, model = (x.clone(), y.clone()), Standardizing(4, 3).double()
    objective = EmpiricalLoss(model, loss, [(x, y)])
    measured(objective)
    assert x.equal(kept[0]) and y.equal(kept[1])
    expected = F.cross_entropy(
        F.linear((x - 1.0) / 2.0, model.weight, model.bias), y.where(y != 255, 0)
    )
    torch.testing.assert_close(objective.value({}), expected.detach(), rtol=1e-14, atol=0)

    def clamped(w: dict[str, Tensor]) -> Tensor:
        w["x"].data.clamp_(max=1.0)
        return w["x"].sum()

    w = {"x": torch.full((2,), 3.0)}
    assert FunctionObjective(clamped).value(w) == 2.0
    assert w["x"].tolist() == [3.0, 3.0]


class Listed(nn.Module):
    """Uses its parameters through a list and a tuple of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3).double()
        self.parts = [self.layer.weight]
        self.more = {"all": (self.layer.bias, None)}

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.parts[0], self.more["all"][0])


def ridge(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy and the squares of the parameters."""
    return lambda o, t: F.cross_entropy(o, t) + sum(p.square().sum() for p in model.parameters())


class Ridge(nn.Module):
    """The same as a module that holds the network."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return ridge(self.model)(outputs, targets)


@pytest.mark.parametrize("penalty", [None, ridge, Ridge])
def test_parameters_are_met_at_the_point_wherever_they_are_looked_up(penalty: Any) -> None:
    listed = Listed()
    x, y = data()
    loss = EmpiricalLoss(listed, penalty(listed) if penalty else F.cross_entropy, [(x, y)])
    w = {n: t.clone().requires_grad_() for n, t in loss.params.items()}
    expected = F.cross_entropy(functional_call(nn.Linear(4, 3), _bare(w), (x,)), y)
    if penalty:
        expected = expected + sum(t.square().sum() for t in w.values())
    moved = {n: t.detach() + 0.0 for n, t in w.items()}
    value, grad = loss.value_and_grad(moved)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-14, atol=0)
    exact = torch.autograd.grad(expected, list(w.values()))
    for got, want in zip(grad.values(), exact, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-15)
    far = {n: t + 1.0 for n, t in moved.items()}
    away = F.cross_entropy(functional_call(nn.Linear(4, 3), _bare(far), (x,)), y)
    if penalty:
        away = away + sum(t.square().sum() for t in far.values())
    torch.testing.assert_close(loss.value(far), away, rtol=1e-13, atol=0)


def _bare(w: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("layer."): t for name, t in w.items()}


def test_parameters_that_the_loss_knows_from_elsewhere_are_refused() -> None:
    model = nn.Linear(4, 3).double()
    captured = list(model.parameters())
    with pytest.raises(ValueError, match=r"reaches '(weight|bias)' on another way"):
        EmpiricalLoss(
            model, lambda o, t: F.cross_entropy(o, t) + sum(p.sum() for p in captured), [data()]
        )


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.DataParallel(nn.Linear(4, 3)), TypeError, "pass model.module"),
        (lambda: torch.jit.script(nn.Linear(4, 3)), TypeError, "got a scripted"),
        (lambda: nn.Sequential(torch.jit.script(nn.Linear(4, 3))), TypeError, "got a scripted"),
        (lambda: nn.LazyLinear(3), ValueError, "waits for a first batch"),
    ],
)
def test_networks_whose_parameters_cannot_be_replaced_are_refused(
    make: Callable[[], nn.Module], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        EmpiricalLoss(make(), F.cross_entropy, [data()])


def test_a_point_must_fit_the_model() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).double()
    model[1].weight = model[0].weight
    x, _ = data()
    loss = EmpiricalLoss(model, F.mse_loss, [(x, x)])
    with pytest.raises(ValueError, match=r"shapes of the model, \(4,\) for '0.bias', got \(1,\)"):
        loss.value({"0.bias": torch.zeros(1, dtype=torch.float64)})
    w = torch.zeros(4, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="name a tied parameter once"):
        loss.value({"0.weight": w, "1.weight": w})
