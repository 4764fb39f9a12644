"""The line between two networks: by hand, and zero between copies of one function."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin.analysis import look
from flatmin.analysis.line import line_between
from flatmin.analysis.matching import balanced, matched
from flatmin.analysis.subject import Subject, fit
from flatmin.symmetry import find_permutations, find_scalings, permute, rescale

DOUBLE = torch.float64


def network(seed: int = 0, *, norm: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle: list[nn.Module] = [nn.BatchNorm1d(8)] if norm else []
        model = nn.Sequential(nn.Linear(3, 8), *middle, nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        model.append(nn.Linear(8, 4))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_()  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return model


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(30, 3, generator=generator), torch.arange(30) % 4


def subject(model: nn.Module, targets: Tensor | None = None) -> Subject:
    x, y = data()
    batches: list[Any] = [(x, y if targets is None else targets)]
    return fit(copy.deepcopy(model), batches, torch.device("cpu"), DOUBLE)


def disguised(model: nn.Module) -> nn.Module:
    """Another network with the same function."""
    twin = copy.deepcopy(model).double().eval()
    x = data()[0].double()
    generator = torch.Generator().manual_seed(2)
    scalings = find_scalings(twin, x)
    rescale(twin, scalings, scalings.sample(generator))
    permutations = find_permutations(twin, x)
    permute(twin, permutations, permutations.sample(generator))
    torch.testing.assert_close(twin(x), copy.deepcopy(model).double().eval()(x))
    return twin


def test_losses_are_those_by_hand() -> None:
    first, second = network(0), network(1)
    found = line_between(subject(first), subject(second), points=5)
    x, y = data()
    assert found["t"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    losses = []
    for t in found["t"]:
        middle = copy.deepcopy(first).double()
        for p, a, b in zip(
            middle.parameters(), first.parameters(), second.parameters(), strict=True
        ):
            p.data = (1 - t) * a.detach().double() + t * b.detach().double()
        losses.append(F.cross_entropy(middle(x.double()), y).item())
    plain = found["lines"][0]
    assert plain["losses"] == pytest.approx(losses, rel=1e-12)
    rises = [
        x - (1 - t) * losses[0] - t * losses[-1] for t, x in zip(found["t"], losses, strict=True)
    ]
    assert plain["barrier"] == pytest.approx(max(rises), abs=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("norm", [False, True])
def test_copies_of_one_function_have_no_barrier_once_they_are_matched(norm: bool) -> None:
    model = network(norm=norm)
    model[-1].weight.data.mul_(9)
    right = copy.deepcopy(model).eval()(data()[0]).argmax(1)  # as if it were trained
    found = line_between(subject(model, right), subject(disguised(model), right), points=9)
    barriers = [line["barrier"] for line in found["lines"]]
    assert barriers[0] > 1e-3 and barriers[1] > 1e-3  # its negative: they are far apart
    assert barriers[2] < 1e-9
    for line in found["lines"]:
        assert line["reason"] is None
        assert line["losses"][0] == pytest.approx(line["losses"][-1], rel=1e-9)
    nearest = found["lines"][2]["losses"]
    assert nearest == pytest.approx([nearest[0]] * 9, rel=1e-6)


def test_the_functions_at_the_ends_stay_what_they_are() -> None:
    first, second = network(0), network(1)
    found = line_between(subject(first), subject(second), points=3)
    for line in found["lines"]:
        plain = found["lines"][0]["losses"]
        assert line["losses"][0] == pytest.approx(plain[0], rel=1e-10)
        assert line["losses"][2] == pytest.approx(plain[2], rel=1e-10)


def test_matching_undoes_any_order() -> None:
    model = network().double()
    x = data()[0].double()
    twin = copy.deepcopy(model)
    permutations = find_permutations(twin, x)
    permute(twin, permutations, permutations.sample(torch.Generator().manual_seed(3)))
    back, reason = matched(twin, model, x)
    assert reason is None
    for name, p in model.named_parameters():
        assert torch.equal(p, dict(back.named_parameters())[name])
    assert not torch.equal(twin[0].weight, model[0].weight)  # a copy was matched


def test_what_has_no_symmetry_is_joined_as_it_is() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if x.sum() > 1e9 else self.layer(2 * x)

    torch.manual_seed(0)
    found = line_between(subject(Branching()), subject(Branching()), points=3)
    assert len({tuple(line["losses"]) for line in found["lines"]}) == 1
    assert all(line["reason"] for line in found["lines"][1:])
    gelu = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 4)).double()
    assert balanced(gelu, data()[0].double())[1] == "nothing in it may be rescaled"


def looked(model: nn.Module, **options: Any) -> Any:
    given = {"data": data()} | options
    return look(model, given["data"], measures=["one-step"], scalings=0)


@pytest.mark.slow
def test_the_figure_says_the_barriers() -> None:
    first, second = looked(network(0)), looked(network(1))
    figure = first.plot_line(second, points=5)
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    found = first.line_to(second, points=5)
    assert texts[0] == f"as they are: barrier {found['lines'][0]['barrier']:.3g}"


def test_what_cannot_be_joined_is_refused() -> None:
    first = looked(network(0))
    with pytest.raises(ValueError, match=r"same parameters, and these two differ in 0\.bias"):
        first.line_to(looked(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4))))
    x, y = data()
    with pytest.raises(ValueError, match="on the same data"):
        first.line_to(looked(network(1), data=(x + 1, y)))
    with pytest.raises(ValueError, match="points must be at least 3, got 2"):
        first.line_to(first, points=2)
