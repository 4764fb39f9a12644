"""Values of a configuration: converted to plain ones, or refused before anything is trained."""

from __future__ import annotations

import enum
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import DATA, config
from torch import nn

from flatmin.train import TrainConfig, train
from flatmin.train.fingerprint import plain


class Precision(enum.StrEnum):
    """What a launcher may hand over."""

    LOW = "bf16"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lr": np.float64(0.25)}, 0.25),
        ({"lr": np.float32(0.25)}, 0.25),
        ({"lr": np.array(0.25)}, 0.25),
        ({"lr": torch.tensor(0.25)}, 0.25),
        ({"lr": 1}, 1.0),
        ({"epochs": np.int64(3)}, 3),
        ({"epochs": torch.tensor(3)}, 3),
        ({"compile": np.bool_(False)}, False),
        ({"compile": torch.tensor(False)}, False),
        ({"precision": np.str_("fp64")}, "fp64"),
        ({"precision": Precision.LOW}, "bf16"),
        ({"options": {"momentum": np.float32(0.5)}}, {"momentum": 0.5}),
        ({"options": {"maximize": np.bool_(1)}}, {"maximize": True}),
        ({"options": {"dampening": 1}}, {"dampening": 1.0}),
        ({"p": math.inf, "minimizer": "sam"}, math.inf),
        ({"p": "inf", "minimizer": "sam"}, math.inf),
        ({"seed": 2**64 - 1}, 2**64 - 1),
    ],
)  # fmt: skip
def test_numbers_of_other_libraries_become_plain(values: dict[str, Any], expected: Any) -> None:
    name = next(iter(values))
    value = getattr(TrainConfig(**values), name)
    assert value == expected
    assert type(value) is type(expected)
    if name == "options":
        assert [type(each) for each in value.values()] == [type(e) for e in expected.values()]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"compile": "false"}, "compile must be True or False, got the text 'false'"),
        ({"compile": 1}, "compile must be True or False, got 1"),
        ({"channels_last": None}, "channels_last must be True or False, got None"),
        ({"biases": "no", "minimizer": "asam"}, "biases must be True or False or None"),
        ({"epochs": True}, "epochs must be an integer, got True"),
        ({"epochs": 3.0}, "epochs must be an integer, got 3.0"),
        ({"seed": np.float64(1)}, "seed must be an integer"),
        ({"batch_size": "128"}, "batch_size must be an integer, got the text"),
        ({"lr": "1e-3"}, "lr must be a number, got the text '1e-3'"),
        ({"lr": True}, "lr must be a number, got True"),
        ({"lr": np.array([0.1])}, r"lr must be a number, got \(0.1,\)"),
        ({"lr": torch.ones(2)}, "lr must be a number"),
        ({"lr": 0.1 + 0j}, "lr must be a plain value"),
        ({"rho": "0.05", "minimizer": "sam"}, "rho must be a number or None"),
        ({"p": "2", "minimizer": "sam"}, "p must be a number or None"),
        ({"model": None}, "model must be a text, got None"),
        ({"optimizer": torch.optim.SGD}, "optimizer must be a plain value"),
        ({"precision": torch.float64}, "precision must be a plain value"),
        ({"options": [("momentum", 0.9)]}, "options must be a dictionary"),
        ({"options": {"nesterov": "false", "momentum": 0.9}}, "options.nesterov must be True or"),
        ({"options": {"foreach": "no"}}, "options.foreach must be True or False or None"),
        ({"options": {"momentum": "0.9"}}, "options.momentum must be a number, got the text"),
        ({"options": {"momentum": True}}, "options.momentum must be a number, got True"),
        ({"options": {"momentum": [0.9]}}, "options.momentum must be a number"),
        ({"options": {1: 2}}, "options must have texts as names, got 1"),
        ({"options": {"momentum": object()}}, "options.momentum must be a plain value"),
        ({"optimizer": "adam", "options": {"betas": (0.9,)}}, r"options.betas must be \(a number,"),
        ({"optimizer": "adam", "options": {"betas": 0.9}}, r"options.betas must be \(a number,"),
    ],
)  # fmt: skip
def test_value_of_another_kind_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words) as caught:
        TrainConfig(**values)
    assert "\n" not in str(caught.value)


NUMBERS = ("lr", "rho", "eta", "p", "warmup", "label_smoothing")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [*NUMBERS, "options.momentum"])
def test_no_number_may_be_nan_or_infinite(name: str, value: float) -> None:
    if name == "p" and value == math.inf:
        return  # the norm that every parameter moves fully in
    field, _, option = name.partition(".")
    given: Any = {option: value} if option else value
    minimizer = "asam" if name in ("rho", "eta", "p") else "none"
    with pytest.raises(ValueError, match=f"^{name} must be"):
        TrainConfig(minimizer=minimizer, **{field: given})


def test_seed_beyond_what_generators_take_is_refused() -> None:
    with pytest.raises(ValueError, match=r"below 2\*\*64"):
        TrainConfig(seed=2**64)


def test_configuration_comes_back_from_json() -> None:
    first = TrainConfig(
        optimizer="adamw", options={"betas": (0.8, 0.9)}, minimizer="sam", warmup=1, lr=0.01
    )
    again = TrainConfig(**json.loads(json.dumps(plain(first))))
    assert first == again
    assert again.options["betas"] == (0.8, 0.9)


def test_options_are_the_configurations_own() -> None:
    options = {"momentum": 0.9}
    chosen = TrainConfig(options=options)
    options["momentum"] = 0.0
    assert chosen.options == {"momentum": 0.9}


class Matrices(nn.Module):
    """All that Muon takes: matrices, no bias."""

    def __init__(self, *, bias: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 8, bias=bias), nn.ReLU(), nn.Linear(8, 3, bias=False)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="since torch 2.9")


@muon
def test_muon_is_judged_by_the_network_that_it_gets() -> None:
    chosen = config(optimizer="muon", lr=0.01, minimizer="sam", epochs=1)
    assert train(chosen, DATA, model=Matrices()).history[0].step == 6
    with pytest.raises(ValueError, match=r"muon cannot be used here.*2D"):
        train(chosen, DATA, model=Matrices(bias=True))
    with pytest.raises(ValueError, match=r"muon cannot be used here.*2D"):
        TrainConfig(model="cnn", optimizer="muon")  # its convolutions are known beforehand


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer": "sparseadam"}, "optimizer must be one of"),
        (
            {"optimizer": "adam", "options": {"differentiable": True}},
            "differentiable must be False",
        ),
        ({"optimizer": "adam", "options": {"fused": True, "foreach": True}}, "cannot be used here"),
    ],
)
def test_optimizer_that_could_not_take_a_step_is_refused(values: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**values)
