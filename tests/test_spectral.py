"""One radius for every width: closed forms, the condition it follows from, and what it refuses."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM, Ball, Identity, Spectral
from flatmin.scale import Scale


def factors(model: nn.Module, **fans: tuple[float, float]) -> dict[str, float]:
    return dict(
        Spectral.of(model, {name.replace("__", "."): f for name, f in fans.items()}).factors
    )


@pytest.mark.parametrize(
    ("module", "squared"),
    [
        (nn.Linear(4, 16), {"weight": 16 / 4, "bias": 16}),
        (nn.Conv2d(3, 8, 5), {"weight": 8 / (3 * 25), "bias": 8}),
        (nn.Conv2d(8, 8, 3, groups=8, bias=False), {"weight": 8 / 9}),
        (nn.ConvTranspose1d(6, 4, 3, bias=False), {"weight": 4 / (6 * 3)}),
        (nn.Embedding(100, 16), {"weight": 16}),
        (nn.EmbeddingBag(100, 16), {"weight": 16}),
        (nn.BatchNorm2d(9), {"weight": 9, "bias": 9}),
        (nn.GRUCell(5, 7, bias=False), {"weight_ih": 21 / 5, "weight_hh": 21 / 7}),
        (nn.MultiheadAttention(6, 2, bias=False), {"in_proj_weight": 3, "out_proj.weight": 1}),
    ],
)
def test_what_modules_lead_from_and_to(module: nn.Module, squared: dict[str, float]) -> None:
    found = {name: factor**2 for name, factor in factors(module).items()}
    assert found == pytest.approx(squared, rel=1e-14)


def network(width: int, seed: int) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A perceptron whose start has the spectral norms of a network that learns features."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(8, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
    ).double()
    with torch.no_grad():
        for layer in model[::2]:
            weight = layer.weight
            fan_out, fan_in = weight.shape
            weight.normal_()
            weight *= math.sqrt(fan_out / fan_in) / torch.linalg.matrix_norm(weight, 2)
            layer.bias.zero_()
    return model, torch.randn(16, 8).double(), torch.randn(16, 1).double()


def moved(width: int, scale: Scale | None, seed: int) -> list[float]:
    """By how much of what its layer computes each weight is moved."""
    model, x, y = network(width, seed)
    nn.functional.mse_loss(model(x), y).backward()
    names = dict(model.named_parameters())
    grads = {name: p.grad for name, p in names.items() if p.grad is not None}
    ball = Ball(0.1, scale=scale or Spectral.of(model))
    shift = ball.shift({name: p.detach() for name, p in names.items()}, grads)
    return [
        float(torch.linalg.matrix_norm(w, 2)) / math.sqrt(w.shape[0] / w.shape[1])
        for w in shift.values()
        if w.ndim == 2
    ]


def slopes(scale: Scale | None) -> list[float]:
    """How they grow with the width, as powers of it; the mean over forty starts."""
    widths = (32, 64, 128, 256)
    means = [
        torch.tensor([moved(width, scale, seed) for seed in range(40)]).log().mean(0)
        for width in widths
    ]
    logs = torch.tensor(widths).double().log()
    logs -= logs.mean()
    return (logs @ torch.stack(means).double() / (logs @ logs)).tolist()


def test_every_layer_is_moved_as_much_at_every_width() -> None:
    """Widths of 32 to 256; what starts have to do with luck leaves a few hundredths."""
    assert max(map(abs, slopes(None))) < 0.15


def test_the_ball_of_sam_moves_some_layers_less_and_less() -> None:
    """In the limit the last layer alone, beside which the first vanishes as 1 / width."""
    first, middle, last = slopes(Identity())
    assert first - last < -0.85 and middle - last < -0.4


def test_an_optimizer_takes_it_and_goes_on_from_a_checkpoint() -> None:
    model, x, y = network(16, 0)
    scale = Spectral.of(model)
    optimizer = SAM(torch.optim.SGD(model.named_parameters(), lr=0.1), rho=0.1, scale=scale)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    nn.functional.mse_loss(model(x), y).backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    expected = Ball(0.1, scale=scale).shift(before, grads)
    with optimizer.perturbed():
        for name, p in model.named_parameters():
            torch.testing.assert_close(
                p.detach() - before[name], expected[name], atol=1e-14, rtol=0
            )
        nn.functional.mse_loss(model(x), y).backward()
    optimizer.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again = pickle.loads(pickle.dumps(scale))
    assert again == scale and hash(again) == hash(scale) != hash(Spectral.of(nn.Linear(2, 3)))


def test_names_that_it_does_not_know_are_refused() -> None:
    model, x, y = network(4, 0)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), scale=Spectral.of(model))
    nn.functional.mse_loss(model(x), y).backward()
    message = r"knows no parameter '0.'.*named_parameters\(\).*first one is '0.weight'"
    with pytest.raises(ValueError, match=message), optimizer.perturbed():
        pass


class Own(nn.Module):
    """A matrix of a module that is not torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.gain = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(()))


def test_what_modules_do_not_tell_is_asked() -> None:
    message = r"'matrix' is a tensor of a Own.*fans=\{'matrix': \(fan_in, fan_out\)\}"
    with pytest.raises(ValueError, match=message):
        Spectral.of(Own())
    assert factors(Own(), matrix=(3, 12)) == {"matrix": 2.0, "gain": 1.0}
    tied = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match=r"'0.weight' is a tensor of two modules"):
        Spectral.of(tied)
    assert factors(tied, **{"0__weight": (1, 4)}) == {"0.weight": 2.0}
    twice = nn.Linear(4, 4)
    assert len(factors(nn.Sequential(twice, nn.Sequential(twice)))) == 2


@pytest.mark.parametrize(
    ("fans", "message"),
    [
        ({"matrx": (1, 2)}, "fans names 'matrx', which is no parameter"),
        ({"matrix": (0, 2)}, r"fans of 'matrix' must be two counts above 0, got \(0, 2\)"),
        ({"matrix": (math.nan, 2)}, "two counts above 0"),
    ],
)
def test_counts_that_are_none_are_refused(
    fans: dict[str, tuple[float, float]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Spectral.of(Own(), fans)


def test_no_module_and_no_shape_yet() -> None:
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got list"):
        Spectral.of([nn.Linear(1, 1)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'weight' waits for a first batch"):
        Spectral.of(nn.LazyLinear(3))
