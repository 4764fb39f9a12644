"""Weights in the forms in which other loops write them, and a number of threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin.analysis.sources import load_network
from flatmin.analysis.threads import Threads, fastest, running_in
from flatmin.analysis.weights import fill, read_weights

State = dict[str, Tensor]
PLAIN: State = {"weight": torch.full((2, 3), 2.0), "bias": torch.full((2,), 3.0)}


def under(prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in PLAIN.items()}


FORMS: dict[str, Any] = {
    "bare": PLAIN,
    "state_dict": {"state_dict": PLAIN, "epoch": 3},
    "model_state_dict": {"model_state_dict": PLAIN, "optimizer_state_dict": {"state": {}}},
    "model": {"model": PLAIN, "epoch": 3, "optimizer": {"state": {0: torch.ones(1)}}},
    "DDP": {"state_dict": under("module.")},
    "compiled": under("_orig_mod."),
    "compiled DDP": under("module._orig_mod."),
    "averaged": {"n_averaged": torch.tensor(4), **under("module.")},
    "Lightning": {"state_dict": under("net."), "pytorch-lightning_version": "2"},
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_in_every_form(form: str, tmp_path: Path) -> None:
    torch.save(FORMS[form], tmp_path / "w.pt")
    model = nn.Linear(3, 2)
    fill(model, read_weights(tmp_path / "w.pt"), "problem")
    assert all(torch.equal(PLAIN[name], p) for name, p in model.named_parameters())


def test_a_network_whose_own_names_have_the_prefix() -> None:
    model = nn.Sequential()
    model.module = nn.Linear(3, 2)
    fill(model, under("module."), "problem")
    fill(model, under("module.module."), "problem")
    assert torch.equal(model.module.bias, PLAIN["bias"])


BAD: dict[str, tuple[Any, str]] = {
    "several": ({"state_dict": PLAIN, "model": PLAIN}, "got several state dicts"),
    "none": ({"epoch": 3}, "got no state dict"),
    "number": (7, "got no state dict"),
    "list": ([torch.ones(1)], "got no state dict"),
    "module": (nn.Linear(1, 1), "model.state_dict"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_holds_no_weights_is_refused(case: str, tmp_path: Path) -> None:
    held, sentence = BAD[case]
    torch.save(held, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=sentence):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("prefix", ["other.", "module.other."])
def test_weights_of_another_network_are_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"^problem: .*Missing key"):
        fill(nn.BatchNorm1d(2), under(prefix), "problem")


def test_a_bare_file_names_the_remedy(tmp_path: Path) -> None:
    for form in ("bare", "state_dict"):
        path = tmp_path / f"{form}.pt"
        torch.save(FORMS[form], path)
        with pytest.raises(ValueError, match=f"measure module:callable --weights {path}`"):
            load_network(str(path), None, 0)


@pytest.fixture
def _two_threads() -> Any:
    with running_in(2):
        yield


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize(("slow", "best"), [(1, 2), (2, 1)])
def test_the_faster_number_of_threads_is_taken(slow: int, best: int) -> None:
    now = 0.0

    def trial() -> None:
        nonlocal now
        now += 5.0 if torch.get_num_threads() == slow else 0.25

    chosen = fastest(trial, clock=lambda: now)
    assert chosen == Threads(best, {slow: 5.0, best: 0.25})
    assert str(chosen).startswith(f"{best} thread") and "with " in str(chosen)
    assert torch.get_num_threads() == 2


def test_nothing_is_tried_where_there_is_one_thread() -> None:
    def trial() -> None:
        raise AssertionError

    failing: Callable[[], object] = trial
    with running_in(1):
        assert fastest(failing) == Threads(1)
