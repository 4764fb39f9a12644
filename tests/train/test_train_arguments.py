"""Outputs of networks, arguments, and torch's own defaults: right, or one sentence."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_runs import DATA, config, same_weights, small
from torch import Tensor, nn

from flatmin.train import TrainConfig, evaluate, train
from slowly import slow_but


class Giving(nn.Module):
    """Returns its logits in some wrapping."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.wrap = small(), wrap

    def forward(self, images: Tensor) -> Any:
        return self.wrap(self.inner(images))


class ModelOutput(OrderedDict[str, Any]):
    """As transformers has them."""


@pytest.mark.parametrize(
    ("wrap", "error", "words"),
    [
        (lambda z: (z, z), TypeError, "got a tuple"),
        (lambda z: [z], TypeError, "got a list"),
        (lambda z: {"logits": z}, TypeError, "got a dict"),
        (lambda z: ModelOutput(logits=z), TypeError, "got a ModelOutput"),
        (lambda z: None, TypeError, "got a NoneType"),
        (lambda z: z.argmax(1), TypeError, r"real numbers, got torch.int64"),
        (lambda z: torch.complex(z, z), TypeError, r"got torch.complex64"),
        (lambda z: z[:, 0], ValueError, r"shape \[10 examples, 3 classes or more\], got \[10\]"),
        (lambda z: z[:, :2], ValueError, r"got \[10, 2\]"),
        (lambda z: z[:5], ValueError, r"got \[5, 3\]"),
        (lambda z: z[:, :, None], ValueError, r"got \[10, 3, 1\]"),
    ],
)
def test_outputs_that_are_no_logits_are_one_sentence(
    wrap: Callable[[Tensor], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        train(config(), DATA, model=Giving(wrap))
    assert "\n" not in str(caught.value)
    with pytest.raises(error):
        evaluate(Giving(wrap), DATA[1], config=config())


def test_more_logits_than_classes_are_fine() -> None:
    assert train(config(epochs=1), DATA, model=small(5)).history[0].step == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data": DATA[0]}, "two ImageSets, .* got ImageSet"),
        ({"data": (DATA[0], None)}, "got ImageSet, NoneType"),
        ({"config": {"lr": 0.1}}, "config must be a TrainConfig, got dict"),
        ({"model": small}, "torch.nn.Module, got function"),
        ({"save_every": 1.5}, "save_every must be an integer"),
        ({"keep": True}, "keep must be an integer, got True"),
        ({"log_every": "3"}, "log_every must be an integer"),
        ({"resume": "false"}, "resume must be True or False"),
        ({"tensorboard": 1}, "tensorboard must be True or False"),
    ],
)
def test_argument_of_another_kind_is_refused(arguments: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"config": config(), "data": DATA, "model": small(), **arguments}
    with pytest.raises(TypeError, match=words):
        train(**given)


def test_device_may_be_a_torch_device() -> None:
    run = train(config(epochs=1), DATA, model=small(), device=torch.device("cpu"))  # type: ignore[arg-type]
    assert run.history[0].step == 6


class Making(nn.Module):
    """Makes tensors without saying of which type or where."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small()

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images) + 0.1 * torch.rand(3) * torch.tensor(0.1)


OWN = Making()
CONFIGS = [
    TrainConfig(model="wrn-10-1", epochs=1, batch_size=30, minimizer="asam", validation=10),
    config(epochs=1, optimizer="adam"),
    config(epochs=1, precision="fp64"),
]


def end(chosen: TrainConfig) -> nn.Module:
    """A network of the package, or an own one, after training."""
    return train(chosen, DATA, model=copy.deepcopy(OWN) if chosen.model == "own" else None).model


@pytest.mark.parametrize("chosen", CONFIGS, ids=["package", "own", "own in double"])
@pytest.mark.parametrize("default", slow_but(["meta", torch.float64, torch.float16], torch.float64))
def test_defaults_of_the_caller_change_no_bit(chosen: TrainConfig, default: Any) -> None:
    """A default device and type, as a script may set them at its top."""
    usual = end(chosen)
    is_device = isinstance(default, str)
    try:
        (torch.set_default_device if is_device else torch.set_default_dtype)(default)
        here = (torch.get_default_dtype(), torch.get_default_device())
        TrainConfig(model="wrn-10-1", minimizer="sam")
        other = end(chosen)
        assert (torch.get_default_dtype(), torch.get_default_device()) == here
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert same_weights(usual, other)
