"""The filter-normalized plane: by hand, and visibly fooled by rescaling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flatmin.analysis import look
from flatmin.analysis.filter_plane import filter_direction, filter_plane, filter_planes
from flatmin.analysis.subject import fit
from flatmin.objective import FunctionObjective


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 3))


def data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(20, 2), torch.arange(20) % 3)]


def test_filters_keep_their_lengths_and_biases_stay() -> None:
    w = {"conv": torch.randn(4, 3, 2, 2, dtype=torch.float64), "bias": torch.ones(4).double()}
    w["conv"][1] = 0.0
    found = filter_direction(w, generator())
    lengths = found["conv"].flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, w["conv"].flatten(1).norm(dim=1), rtol=1e-12, atol=0.0)
    assert not found["bias"].any()
    drawn = torch.empty_like(w["conv"]).normal_(generator=generator())
    cosine = F.cosine_similarity(found["conv"].flatten(1), drawn.flatten(1))
    torch.testing.assert_close(cosine[[0, 2, 3]], torch.ones(3).double())


def test_losses_are_those_by_hand() -> None:
    bowl = FunctionObjective(lambda w: w["x"].square().sum() / w["x"][0, 0])
    w = {"x": torch.tensor([[3.0, 4.0]], dtype=torch.float64)}
    source = torch.Generator()
    plane = filter_plane(bowl, w, grid=3, seed=5)
    from flatmin._streams import stream

    source = stream("filter plane", 5)
    first, second = (filter_direction(w, source)["x"] for _ in range(2))
    assert plane["grid"] == [-1.0, 0.0, 1.0]
    for j, y in enumerate(plane["grid"]):
        for k, x in enumerate(plane["grid"]):
            by_hand = bowl.value({"x": w["x"] + x * first + y * second}).item()
            assert plane["plane"][j][k] == pytest.approx(by_hand, rel=1e-12)


def test_a_rescaled_copy_looks_different_though_its_function_is_the_same() -> None:
    subject = fit(network(), data(), torch.device("cpu"), torch.float64)
    own, copy = filter_planes(subject, grid=3, seed=0)
    assert own["plane"][1][1] == pytest.approx(copy["plane"][1][1], rel=1e-12)
    rises = [
        [plane["plane"][j][k] - plane["plane"][1][1] for j in (0, 2) for k in (0, 2)]
        for plane in (own, copy)
    ]
    assert max(abs(b / a - 1) for a, b in zip(*rises, strict=True)) > 0.1


def test_the_figure_says_that_it_is_fooled() -> None:
    found = look(network(), data(), measures=["one-step"], scalings=0)
    figure = found.plot_filter_normalized(grid=3)
    assert "rescaling the network changes the picture" in figure.get_suptitle()
    assert len(figure.axes) == 3  # two planes and the colors
    smooth = nn.Sequential(nn.Linear(2, 6), nn.GELU(), nn.Linear(6, 3))
    alone = look(smooth, data(), measures=["one-step"], scalings=0)
    assert len(alone.plot_filter_normalized(grid=3).axes) == 2
    with pytest.raises(ValueError, match="grid must be at least 2, got 1"):
        found.plot_filter_normalized(grid=1)
