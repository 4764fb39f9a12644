"""Frozen parts, modes and types of a user's network stay what they are, resumed or not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import DATA, Small, config, same_weights, small
from torch import Tensor, nn

from flatmin.train import evaluate, train


def frozen_statistics() -> Small:
    """BatchNorm as it came, as in fine-tuning."""
    model = small()
    model.layers[1].running_mean.fill_(0.3)
    model.layers[1].eval()
    return model


def test_statistics_of_a_module_in_eval_mode_stay() -> None:
    model = frozen_statistics()
    train(config(), DATA, model=model)
    assert torch.equal(model.layers[1].running_mean, torch.full((4,), 0.3))
    assert [m.training for m in (model, model.layers[1], model.layers[4])] == [True, False, True]
    # The negative: a whole network in eval mode, as libraries hand them out, is trained.
    whole = frozen_statistics().eval()
    train(config(), DATA, model=whole)
    assert all(module.training for module in whole.modules())
    assert not torch.equal(whole.layers[1].running_mean, torch.full((4,), 0.3))


def test_a_network_that_is_frozen_as_a_whole_is_refused() -> None:
    with pytest.raises(ValueError, match="a parameter with requires_grad; all of it is frozen"):
        train(config(), DATA, model=small().requires_grad_(False))


def test_evaluation_puts_every_mode_back() -> None:
    model = frozen_statistics()
    evaluate(model, DATA[1], config=config())
    assert [m.training for m in (model, model.layers[1], model.layers[4])] == [True, False, True]


class Freezing(nn.Module):
    """Freezes its convolution, and the statistics behind it, after some passes."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.inner = small()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.until = calls

    def forward(self, images: Tensor) -> Tensor:
        self.calls += self.training
        if self.calls == self.until:
            self.inner.layers[0].requires_grad_(False)
            self.inner.layers[1].eval()
        return self.inner(images)


@pytest.mark.parametrize("minimizer", ["none", "sam"])
def test_what_was_frozen_on_the_way_is_frozen_after_a_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minimizer: str
) -> None:
    chosen = config(minimizer=minimizer, optimizer="adam", epochs=3)
    whole = train(chosen, DATA, model=Freezing(9))

    class Crash(Exception):
        pass

    def crash(self: Any, batches: Any) -> int | None:
        if self.step == 13:
            raise Crash
        return real(self, batches)

    from flatmin.train.state import State

    real = State.advance
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(State, "advance", crash)
        train(chosen, DATA, model=Freezing(9), out=tmp_path)
    rest = train(chosen, DATA, model=Freezing(9), out=tmp_path, resume=True)
    assert same_weights(whole.model, rest.model)
    assert not rest.model.inner.layers[0].weight.requires_grad
    assert not rest.model.inner.layers[1].training


def test_run_is_not_resumed_with_other_parameters_frozen(tmp_path: Path) -> None:
    train(config(epochs=1), DATA, model=small(), out=tmp_path)
    other = small()
    other.layers[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"other frozen parameters \(none\) than these \(layers"):
        train(config(epochs=1), DATA, model=other, out=tmp_path, resume=True)


class Complex(nn.Module):
    """A layer of complex numbers before an ordinary head."""

    def __init__(self, dtype: torch.dtype = torch.complex64) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.randn(64, 8, dtype=dtype))
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head((images.flatten(1).to(self.turn.dtype) @ self.turn).abs())


def test_complex_parameters_stay_complex() -> None:
    model = Complex()
    before = model.turn.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(config(epochs=1), DATA, model=model)
    assert model.turn.dtype == torch.complex64
    assert (model.turn - before).imag.abs().max() > 0
    with pytest.raises(ValueError, match=r"turn is torch.complex64.* cast it to torch.complex128"):
        train(config(epochs=1, precision="fp64"), DATA, model=Complex())
    chosen = config(epochs=1, precision="fp64")
    assert train(chosen, DATA, model=Complex(torch.complex128)).model.turn.dtype.is_complex


def test_lazy_parameters_are_one_sentence(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"1.weight has no shape yet: run the network on one"):
        train(config(), DATA, model=model, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_network_without_parameters_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="sgd cannot be used here: optimizer got an empty"):
        train(config(), DATA, model=nn.Flatten())


def test_tied_parameters_are_resumed_as_one(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 3)
        )
        model[3].weight = model[1].weight
        return model

    chosen = config(optimizer="adam", minimizer="asam")
    whole = train(chosen, DATA, model=tied(), out=tmp_path)
    sorted(tmp_path.glob("step-*"))[-1].unlink()
    rest = train(chosen, DATA, model=tied(), out=tmp_path, resume=True)
    assert same_weights(whole.model, rest.model)
    assert rest.model[3].weight is rest.model[1].weight
