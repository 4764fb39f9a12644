"""Parameters that are tied by their memory alone: refused where the tie would be cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin import EmpiricalLoss
from flatmin.objective import empirical


class Tied(nn.Module):
    """A decoder that is the encoder, turned around."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.encoder = nn.Linear(4, 3)
        self.double()

    def decoder(self) -> Tensor:
        return self.encoder.weight.t()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.encoder(x)), self.decoder())


class ByView(Tied):
    """Kept once: it sees each step of an optimizer."""

    def __init__(self, keep: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.kept = keep(self.encoder.weight.t())

    def decoder(self) -> Tensor:
        inside = self.kept[0] if isinstance(self.kept, tuple | list) else self.kept
        assert isinstance(inside, Tensor)
        return inside


class ByBuffer(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", self.encoder.weight.detach().t())

    def decoder(self) -> Tensor:
        return self.get_buffer("kept")


class ByData(Tied):
    """Two parameters over one memory."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Parameter(torch.empty(4, 3))
        self.other.data = self.encoder.weight.data.t()

    def decoder(self) -> Tensor:
        return self.other


TIES: dict[str, tuple[Callable[[], Tied], str]] = {
    "attribute": (lambda: ByView(lambda t: t), "kept shares"),
    "without a graph": (lambda: ByView(Tensor.detach), "kept shares"),
    "tuple": (lambda: ByView(lambda t: (t, "decoder")), "kept shares"),
    "list": (lambda: ByView(lambda t: [t]), r"kept\[0\] shares"),
    "buffer": (ByBuffer, "kept shares"),
    "data": (ByData, "'other' shares memory with 'encoder.weight'"),
}


def data() -> Tensor:
    source = torch.Generator().manual_seed(1)
    return torch.randn(12, 4, dtype=torch.float64, generator=source)


@pytest.mark.parametrize(("make", "message"), TIES.values(), ids=TIES)
def test_a_tie_by_memory_is_refused(make: Callable[[], Tied], message: str) -> None:
    model, x = make(), data()
    with pytest.raises(ValueError, match=f"each parameter must be one tensor, but {message}"):
        EmpiricalLoss(model, F.mse_loss, [(x, x)])
    assert model.decoder().data_ptr() == model.encoder.weight.data_ptr()


@pytest.mark.parametrize("make", [make for make, _ in TIES.values()], ids=TIES)
def test_not_to_ask_is_a_wrong_number(
    make: Callable[[], Tied], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(empirical, "tie_fault", lambda *_: None)
    x = data()
    values = []
    for model in (Tied(), make()):
        loss = EmpiricalLoss(model, F.mse_loss, [(x, x)])
        w = {"encoder.weight": model.encoder.weight.detach() * 1.5}
        values.append(loss.value(w).item())
    assert values[1] != pytest.approx(values[0], rel=1e-3)


class Apart(nn.Module):
    """Columns of one matrix, and views that nobody uses: no ties."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        whole = torch.randn(3, 4, dtype=torch.float64)
        self.left, self.right = nn.Parameter(whole[:, :2]), nn.Parameter(whole[:, 2:])
        self.whole, self.views = whole, [self.left.detach(), self.right.detach()]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch.cat([self.left, self.right], 1))


def test_no_tie_is_none() -> None:
    model, x = Apart(), data()
    y = torch.arange(12) % 3
    loss = EmpiricalLoss(model, F.cross_entropy, [(x, y)])
    true = F.cross_entropy(F.linear(x, model.whole), y)
    torch.testing.assert_close(loss.value(loss.params), true, rtol=1e-14, atol=0)
    # What is tied by name is one tensor.
    EmpiricalLoss(Tied(), F.mse_loss, [(x, x)])
    # Frozen ones do not move.
    EmpiricalLoss(ByData().requires_grad_(False), F.mse_loss, [(x, x)])
