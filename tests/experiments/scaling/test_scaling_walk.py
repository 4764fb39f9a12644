"""The walk keeps the function, and its stacked arithmetic is that of one network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from flatmin import Elementwise, EmpiricalLoss, Identity
from flatmin.ball import Ball
from flatmin.experiments.scaling._walk import (
    Walk,
    median,
    middle,
    ratio,
    rotated,
    scaling_walk,
    spread,
)
from flatmin.scale import Scale
from flatmin.sharpness import one_step_sharpness


def walk(**changes: object) -> Walk:
    options = {"steps": 6, "points": 40, "variance": 2.0, "hidden_biases": True} | changes
    return scaling_walk(3, **options)  # type: ignore[arg-type]


def moved(outputs: Tensor) -> float:
    return ((outputs - outputs[0]).abs().max() / outputs[0].square().mean().sqrt()).item()


@pytest.mark.parametrize("scale", [Identity(), Elementwise(0.01, biases=False), Elementwise()])
def test_the_climb_is_the_one_step_sharpness_of_every_network(scale: Scale) -> None:
    many = walk()
    objective = EmpiricalLoss(many.model, cross_entropy, [(many.inputs, many.targets)])
    loss, worst = many.climb(0.5, scale)
    for step in range(7):
        params = {name: tensor[step] for name, tensor in many.params.items()}
        one = one_step_sharpness(objective, params, Ball(0.5, scale=scale))
        assert loss[step].item() == pytest.approx(one.loss, rel=1e-12)
        assert worst[step].item() == pytest.approx(one.worst_loss, rel=1e-12)


@pytest.mark.parametrize("hidden_biases", [False, True])
def test_scalings_keep_the_function_and_move_the_weights(hidden_biases: bool) -> None:
    many = walk(hidden_biases=hidden_biases)
    assert many.outputs().shape == (7, 40, 2)
    assert moved(many.outputs()) < 1e-13
    assert moved(many.params["hidden.2.weight"]) > 0.1
    assert moved(walk(hidden_biases=hidden_biases, dtype=torch.float32).outputs()) < 1e-5


def test_biases_left_behind_change_the_function() -> None:
    many = walk(weights_only=True)
    assert torch.equal(many.params["hidden.0.bias"][0], many.params["hidden.0.bias"][-1])
    assert moved(many.outputs()) > 0.1


def test_the_dtypes_walk_the_same_way() -> None:
    double, single = walk(), walk(dtype=torch.float32)
    for name in double.params:
        torch.testing.assert_close(
            double.params[name].float(), single.params[name], rtol=1e-5, atol=0
        )


def test_the_walk_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    walk()
    assert torch.equal(before, torch.get_rng_state())


def test_rotations_keep_the_function_but_not_the_elementwise_measure() -> None:
    turned = rotated(walk(), 5, seed=0)
    assert moved(turned.outputs()) < 1e-13
    loss, worst = turned.climb(0.5, Elementwise())
    assert spread(worst - loss) > 0.05
    start, end = walk().climb(0.5, Elementwise())
    assert spread(end - start) < 1e-11


def test_numbers_of_a_walk() -> None:
    values = torch.tensor([2.0, -8.0, 4.0])
    assert ratio(values) == 4.0
    assert spread(torch.tensor([1.0, 2.0, 3.0])) == 1.0
    assert (middle([5.0, 1.0, 3.0]), middle([4.0, 1.0])) == (2, 1)
    assert median([4.0, 1.0]) == 2.5
