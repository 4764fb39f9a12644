"""Checkpoints in their plane: those of a singular value decomposition, with the loss by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin.analysis import look
from flatmin.analysis.subject import Subject, fit
from flatmin.analysis.trajectory import trajectory

State = dict[str, Tensor]


def run() -> tuple[nn.Module, list[State], list[tuple[Tensor, Tensor]]]:
    """A short training with a normalization, and its checkpoints."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).double()
    x, y = torch.randn(20, 2, dtype=torch.float64), torch.arange(20) % 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    states = []
    for _ in range(6):
        states.append({name: t.clone() for name, t in model.state_dict().items()})
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, states, [(x, y)]


def subject(model: nn.Module, batches: Any) -> Subject:
    return fit(model, batches, torch.device("cpu"), torch.float64)


def test_the_plane_is_that_of_a_singular_value_decomposition() -> None:
    model, states, batches = run()
    found = trajectory(subject(model, batches), states, grid=3)
    w = torch.cat([p.detach().flatten() for p in model.parameters()])
    names = [name for name, _ in model.named_parameters()]
    rows = torch.stack([torch.cat([s[n].flatten() for n in names]) for s in states]) - w
    _, values, vectors = torch.linalg.svd(rows, full_matrices=False)
    path = np.array(found["path"])
    for k in (0, 1):
        column = (rows @ vectors[k]).numpy()
        sign = np.sign(column @ path[:, k])
        np.testing.assert_allclose(path[:, k], sign * column, atol=1e-10)
    shares = (values**2 / (values**2).sum())[:2]
    assert found["explained"] == pytest.approx(shares.tolist(), rel=1e-9)
    for axis, places in zip((found["x"], found["y"]), path.T, strict=True):
        assert axis[0] < min(0.0, *places) and axis[-1] > max(0.0, *places)


def test_losses_are_those_of_the_checkpoints_with_their_statistics() -> None:
    model, states, batches = run()
    found = trajectory(subject(model, batches), states, grid=2)
    x, y = batches[0]
    for state, loss in zip(states, found["losses"], strict=True):
        twin = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
        twin.double().eval().load_state_dict(state)
        assert loss == pytest.approx(F.cross_entropy(twin(x), y).item(), rel=1e-12)


def test_in_a_plane_of_two_parameters_the_losses_are_by_hand() -> None:
    model = nn.Linear(2, 1, bias=False).double()
    torch.nn.init.constant_(model.weight, 0.5)
    x = torch.eye(2, dtype=torch.float64)
    batches = [(x, torch.zeros(2, 1, dtype=torch.float64))]
    states = [{"weight": torch.tensor([[a, b]]).double()} for a, b in ((2.0, 0.5), (0.5, 1.5))]
    found = trajectory(subject(model, batches), states, grid=5)
    assert found["explained"] == pytest.approx([1.5**2 / 3.25, 1 / 3.25])
    signs = np.sign([found["path"][0][0], found["path"][1][1]])
    for j, b in enumerate(found["y"]):
        for k, a in enumerate(found["x"]):
            by_hand = ((0.5 + signs[0] * a) ** 2 + (0.5 + signs[1] * b) ** 2) / 2
            assert found["plane"][j][k] == pytest.approx(by_hand, rel=1e-12)


def test_the_figure_says_what_to_be_wary_of() -> None:
    model, states, batches = run()
    found = look(model, batches, measures=["one-step"], scalings=0)
    before = {name: t.clone() for name, t in found.subject.model.state_dict().items()}
    wrapped = [{f"module.{name}": t for name, t in state.items()} for state in states]
    figure = found.plot_trajectory(wrapped, grid=3)
    assert "rescaling the networks changes the picture" in figure.get_suptitle()
    assert figure.axes[0].get_title(loc="left").startswith("6 checkpoints")
    for name, tensor in found.subject.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_what_spans_no_plane_is_refused() -> None:
    model, states, batches = run()
    one = subject(model, batches)
    with pytest.raises(ValueError, match="two checkpoints at least, got 1"):
        trajectory(one, states[:1])
    with pytest.raises(ValueError, match="checkpoint 0 does not fit the network"):
        trajectory(one, [{"weight": torch.ones(1)}] * 2)
    with pytest.raises(ValueError, match="grid must be at least 2, got 1"):
        trajectory(one, states, grid=1)
    own = dict(model.state_dict())
    with pytest.raises(ValueError, match="the network itself"):
        trajectory(one, [own, own])
    with pytest.raises(ValueError, match="lie on a line"):
        trajectory(one, [states[0], states[0]])
