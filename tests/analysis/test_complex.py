"""Complex numbers in a network stay complex: the loss that is measured is the network's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin.analysis import AlongTraining, look
from flatmin.analysis.subject import digest


class Rotary(nn.Module):
    """Turns pairs of numbers by angles, as language models do."""

    def __init__(self, angle: float = 0.7) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.register_buffer("turns", torch.polar(torch.ones(2), torch.tensor([angle, 1.9])))

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(self.first(x).reshape(-1, 2, 2)) * self.turns
        return self.last(torch.view_as_real(pairs).flatten(1))


class Spectral(nn.Module):
    """Weighs frequencies, as Fourier neural operators do."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(3, dtype=torch.cfloat))
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.fft.irfft(torch.fft.rfft(x) * self.weights, n=4))


def made(kind: type[nn.Module], *given: float) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(*given)


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(12, 4, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3


QUICK: dict[str, Any] = {"measures": ["one-step"], "scalings": 0}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_complex_buffer_keeps_both_its_parts(dtype: torch.dtype) -> None:
    model, (x, y) = made(Rotary), data()
    own = F.cross_entropy(model(x), y).item()
    found = look(model, (x, y), dtype=dtype, **QUICK)
    assert found.loss == pytest.approx(own, rel=1e-6)
    assert found.subject.model.turns.dtype == dtype.to_complex()
    along = AlongTraining(model, None, (x, y), every=1, dtype=dtype)
    along.step()
    assert along.history[0]["loss"] == found.loss


def test_a_complex_parameter_is_refused_unless_it_is_frozen() -> None:
    model, (x, y) = made(Spectral), data()
    with pytest.raises(ValueError, match=r"must be real, but 'weights' is torch\.complex64"):
        look(model, (x, y), **QUICK)
    with pytest.raises(ValueError, match=r"by torch\.view_as_complex, or freeze it"):
        AlongTraining(model, None, (x, y))
    model.weights.requires_grad_(False)
    own = F.cross_entropy(model(x), y).item()
    assert look(model, (x, y), **QUICK).loss == pytest.approx(own, rel=1e-6)


def test_where_the_first_parameter_is_complex_the_type_is_that_of_the_others() -> None:
    model = made(Spectral)
    model.weights.requires_grad_(False)
    assert look(model, data(), **QUICK).subject.dtype == torch.float64


class Modulus(nn.Module):
    """Takes complex inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("turn", torch.tensor(0.6 + 0.8j))

    def forward(self, z: Tensor) -> Tensor:
        return self.layer((z + self.turn).abs())


def test_complex_inputs_keep_both_their_parts() -> None:
    model, (x, y) = made(Modulus), data()
    z = torch.complex(x, x.flip(0))
    found = look(model, (z, y), **QUICK)
    assert found.loss == pytest.approx(F.cross_entropy(model(z), y).item(), rel=1e-6)
    assert digest([(z, y)]) != digest([(z.conj(), y)])


class Insisting(Modulus):
    """Makes float32 numbers itself."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) @ torch.eye(3, dtype=torch.float32)


def test_the_remedy_for_a_precision_is_found_with_complex_inputs_too() -> None:
    x, y = data()
    given = torch.complex(x, x.flip(0)), y
    with pytest.raises(ValueError, match=r"float32 numbers itself.*dtype=torch\.float32"):
        look(made(Insisting), given, **QUICK)
    assert look(made(Insisting), given, dtype=torch.float32, **QUICK).loss > 0


def test_a_line_joins_complex_buffers_as_well() -> None:
    """Half of the way from 0.7 to 0.9 the turn is the mean of both, as running statistics are."""
    x, y = data()
    looks = [look(made(Rotary, angle), (x, y), **QUICK) for angle in (0.7, 0.9)]
    line = looks[0].line_to(looks[1], points=3)["lines"][0]
    middle: Any = made(Rotary)
    middle.turns = (made(Rotary, 0.7).turns + made(Rotary, 0.9).turns) / 2  # type: ignore[operator]
    assert line["losses"][1] == pytest.approx(F.cross_entropy(middle(x), y).item(), rel=1e-6)
