"""A configuration refuses what cannot be run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from flatmin import ASAM, SAM, Every, LastPart, WhenLarge, WithProbability
from flatmin.optim import When
from flatmin.train import TrainConfig
from flatmin.train.optimizers import build_optimizer, learning_rate


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"accumulation": 200}, "accumulation"),
        ({"validation": -1}, "validation"),
        ({"model": "resnet"}, "wrn-D-W"),
        ({"model": "wrn-11-1"}, "6n"),
        ({"model": "wrn-10-0"}, "width"),
        ({"optimizer": "sdg"}, "sgd"),
        ({"optimizer": "lbfgs"}, "sgd"),
        ({"optimizer": "optimizer"}, "sgd"),
        ({"options": {"momentun": 0.9}}, "momentum"),
        ({"options": {"momentum": -1.0}}, "momentum"),
        ({"options": {"lr": 0.1}}, "field lr"),
        ({"lr": 0.0}, "lr"),
        ({"lr": float("inf")}, "lr"),
        ({"minimizer": "sma"}, "asam"),
        ({"minimizer": "perturbed"}, "asam"),
        ({"minimizer": "sam", "rho": -1.0}, "rho"),
        ({"minimizer": "sam", "eta": 0.1}, "no eta"),
        ({"rho": 0.1}, "belong to a minimizer"),
        ({"when": "every-5"}, "when belong to a minimizer"),
        ({"perturb": "norms", "model": "wrn-10-1"}, "perturb belong to a minimizer"),
        ({"minimizer": "sam", "when": "often"}, "every-K"),
        ({"minimizer": "sam", "when": "every-0"}, "k must be at least 1"),
        ({"minimizer": "sam", "when": "last-1.5"}, "when=last-1.5 cannot .* at most 1, got 1.5"),
        ({"minimizer": "msam", "when": "large"}, "which MSAM does not make"),
        ({"minimizer": "sam", "when": "large", "precision": "fp16"}, "choose bf16"),
        ({"minimizer": "FriendlySAM", "precision": "fp16"}, "friendlysam compares .* choose bf16"),
        ({"minimizer": "gsam", "eta": 0.1}, "no eta"),
        ({"minimizer": "sam", "perturb": "biases"}, "perturb must be one of all, norms"),
        ({"minimizer": "sam", "perturb": "norms", "model": "cnn"}, "no parameter that trains"),
        ({"minimizer": "msam"}, "momentum of its base, and SGD has none"),
        ({"schedule": "linear"}, "cosine"),
        ({"precision": "fp8"}, "bf16"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"warmup": 99.0}, "warmup"),
    ],
)
def test_bad_value_is_refused_in_one_sentence(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        TrainConfig(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["epochs", "seed", "batch_size"])
def test_counts_are_integers(name: str) -> None:
    with pytest.raises(TypeError, match="integer"):
        TrainConfig(**{name: 1.5})


def test_making_a_configuration_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    TrainConfig(model="wrn-10-1", minimizer="asam")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["sgd", "Adam", "AdamW", "RMSprop", "NAdam", "adagrad"])
def test_torch_optimizers_by_name(name: str) -> None:
    config = TrainConfig(optimizer=name, lr=0.01, options={"weight_decay": 0.1})
    group = build_optimizer(config, torch.nn.Linear(2, 1)).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.1)


def test_minimizer_gets_its_own_arguments_and_the_model() -> None:
    model = torch.nn.Linear(2, 1)
    config = TrainConfig(minimizer="ASAM", rho=0.3, eta=0.2, biases=True, p=3.0)
    optimizer = build_optimizer(config, model)
    assert isinstance(optimizer, ASAM)
    assert optimizer.model is model
    group = optimizer.param_groups[0]
    assert (group["sam_rho"], group["sam_eta"], optimizer.biases, optimizer.p) == (
        0.3,
        0.2,
        True,
        3.0,
    )


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("always", None),
        ("every-5", Every(5)),
        ("last-0.3", LastPart(0.3, of=40)),
        ("last-0.3-ramp-7", LastPart(0.3, of=40, ramp=7)),
        ("chance-0.5", WithProbability(0.5, seed=3)),
        ("large", WhenLarge(of=40)),
    ],
)
def test_when_by_a_word(word: str, rule: When | None) -> None:
    """The last part is one of all steps, which the data know."""
    config = TrainConfig(minimizer="sam", when=word, epochs=4, seed=3)
    optimizer = build_optimizer(config, torch.nn.Linear(2, 1), steps=10)
    assert isinstance(optimizer, SAM)
    assert optimizer.when == rule


@pytest.mark.parametrize(
    "name", ["GSAM", "FriendlySAM", "WSAM", "SSAM", "MSAM", "AsyncSAM", "SAM", "ASAM"]
)
def test_every_minimizer_by_its_name(name: str) -> None:
    config = TrainConfig(minimizer=name.lower(), rho=0.3, options={"momentum": 0.9})
    optimizer = build_optimizer(config, torch.nn.Linear(2, 1))
    assert type(optimizer).__name__ == name
    assert optimizer.param_groups[0]["sam_rho"] == 0.3


def test_norms_alone_by_a_word() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    config = TrainConfig(minimizer="asam", perturb="norms", model="own", rho=10.0)
    optimizer = build_optimizer(config, network)
    radii = {
        name: group["sam_rho"] for group in optimizer.param_groups for name in group["param_names"]
    }
    assert radii == {"1.weight": 10.0, "1.bias": 10.0, "0.weight": 0.0, "0.bias": 0.0}


def torch_rates(scheduler: torch.optim.lr_scheduler.LRScheduler, count: int) -> list[float]:
    """What a scheduler of torch makes of its optimizer's rate."""
    rates = []
    for _ in range(count):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("schedule", "every"), [("cosine", 1), ("cosine-by-epoch", 5)])
def test_cosine_equals_that_of_torch(schedule: str, every: int) -> None:
    config = TrainConfig(lr=0.3, epochs=4, schedule=schedule)
    base = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(base, 20 // every)
    expected = torch_rates(annealing, 20 // every)
    ours = [learning_rate(config, step, 5) for step in range(0, 20, every)]
    assert ours == pytest.approx(expected, rel=1e-12)
    held = [learning_rate(config, step, 5) for step in range(20)]
    assert (len(set(held)) == 4) == (schedule == "cosine-by-epoch")


def test_constant_rate_after_warmup() -> None:
    config = TrainConfig(lr=1.0, epochs=2, schedule="none", warmup=0.8)
    rates = [learning_rate(config, step, 5) for step in range(10)]
    assert rates == [0.25, 0.5, 0.75, 1.0] + [1.0] * 6
