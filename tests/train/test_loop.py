"""What the loop computes, against loops written out by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_runs import DATA, config, image_set, same_weights, small

from flatmin import ASAM, SAM
from flatmin.data import Augment, Batches
from flatmin.train import TrainConfig, evaluate, train
from flatmin.train.parts import hold_out


def by_hand(minimizer: str) -> torch.nn.Module:
    """Two epochs of the plainest loop."""
    torch.manual_seed(0)
    model = small().double()
    base = torch.optim.SGD(model.named_parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    optimizer: Any = base
    if minimizer != "none":
        optimizer = {"sam": SAM, "asam": ASAM}[minimizer](base, rho=0.1, model=model)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(base, 12)
    generator = torch.Generator().manual_seed(0)
    batches = Batches(DATA[0], 10, generator=generator, augment=Augment(1), dtype=torch.float64)
    for _ in range(2):
        for images, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
            if minimizer != "none":
                with optimizer.perturbed():
                    F.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
            optimizer.step()
            schedule.step()
    return model


def controlled(minimizer: str, **changes: Any) -> TrainConfig:
    """The same as a configuration."""
    options = {"momentum": 0.9, "weight_decay": 0.01}
    rho = None if minimizer == "none" else 0.1
    return config(
        minimizer=minimizer,
        rho=rho,
        options=options,
        precision="fp64",
        label_smoothing=0.1,
        **changes,
    )


def distance(a: torch.nn.Module, b: torch.nn.Module) -> float:
    """Largest difference of two networks' parameters."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max((x - y).abs().max().item() for x, y in pairs)


@pytest.mark.parametrize("minimizer", ["none", "sam", "asam"])
def test_loop_equals_the_plain_one(minimizer: str) -> None:
    run = train(controlled(minimizer), DATA, model=small())
    assert distance(run.model, by_hand(minimizer)) <= 1e-12
    assert [epoch.step for epoch in run.history] == [6, 12]
    passes = 1 if minimizer == "none" else 2
    assert [epoch.gradients for epoch in run.history] == [6 * passes, 12 * passes]


@pytest.mark.parametrize(
    ("changes", "gradients"),
    [
        ({"minimizer": "sam", "when": "every-4"}, [6 + 2, 12 + 3]),
        ({"minimizer": "asam", "when": "last-0.25"}, [6, 12 + 3]),
        ({"minimizer": "msam", "options": {"momentum": 0.9}}, [6, 12]),
        ({"minimizer": "asyncsam", "when": "every-4"}, [6, 12]),
        ({"minimizer": "sam", "rho": 0.0}, [6, 12]),
        ({"minimizer": "sam", "perturb": "norms"}, [12, 24]),
    ],
)
def test_the_gradients_that_a_way_costs(changes: dict[str, Any], gradients: list[int]) -> None:
    run = train(config(**changes), DATA, model=small())
    assert [epoch.gradients for epoch in run.history] == gradients


def test_minimizers_differ() -> None:
    ends = [train(controlled(name), DATA, model=small()).model for name in ("none", "sam", "asam")]
    assert distance(ends[0], ends[1]) > 1e-4
    assert distance(ends[1], ends[2]) > 1e-4


def without_noise() -> torch.nn.Module:
    """A network that treats every image alike: no dropout, no BatchNorm."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
    )


@pytest.mark.parametrize("minimizer", ["none", "sam", "asam"])
def test_accumulation_equals_one_batch(minimizer: str) -> None:
    whole, pieces = (
        train(controlled(minimizer, accumulation=count, batch_size=16), DATA, model=without_noise())
        for count in (1, 3)  # 16 and 12 images in pieces of 6, 5, 5 and 4
    )
    assert distance(whole.model, pieces.model) <= 1e-12
    assert whole.history[-1].running_loss == pytest.approx(pieces.history[-1].running_loss)
    assert whole.history[-1].gradients == pieces.history[-1].gradients


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_stays_near(precision: str) -> None:
    exact = train(config(), DATA, model=small())
    rough = train(config(precision=precision), DATA, model=small())
    assert 0 < distance(exact.model, rough.model) < 0.02
    assert all(value.dtype == torch.float32 for value in rough.model.parameters())


def test_channels_last_is_another_layout_of_the_same_numbers() -> None:
    plain = train(config(precision="fp64"), DATA, model=small())
    other = train(config(precision="fp64", channels_last=True), DATA, model=small())
    assert distance(plain.model, other.model) <= 1e-12


def test_start_and_batches_depend_on_the_seed_alone() -> None:
    data = (image_set(40, 0), image_set(10, 1))
    losses = {}
    for seed in (0, 1):
        for minimizer in ("none", "sam"):
            run = train(
                TrainConfig(
                    model="wrn-10-1", epochs=1, batch_size=40, seed=seed, minimizer=minimizer
                ),
                data,
            )
            losses[seed, minimizer] = run.history[0].running_loss  # that of the first batch
    assert losses[0, "none"] == losses[0, "sam"] != losses[1, "none"]


def test_randomness_of_the_caller_is_left_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = train(config(), DATA, model=small())
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(8)
    assert same_weights(first.model, train(config(), DATA, model=small()).model)


def test_history_reports_what_evaluation_gives() -> None:
    chosen = config(validation=15, evaluate_train=10)
    run = train(chosen, DATA, model=small())
    last = run.history[-1]
    assert (last.test_loss, last.test_accuracy) == evaluate(run.model, DATA[1], config=chosen)
    held_out = hold_out(DATA[0], 15)[1]
    assert (last.validation_loss, last.validation_accuracy) == evaluate(
        run.model, held_out, config=chosen
    )
    assert last.gap == last.train_accuracy - last.test_accuracy
    assert last.step == 10  # 45 images in batches of 10
    assert last.seconds > 0
    assert run.model.training


def test_the_test_set_changes_nothing_but_its_own_row() -> None:
    one = train(config(), DATA, model=small())
    other = train(config(), (DATA[0], image_set(33, 5)), model=small())
    assert same_weights(one.model, other.model)
    assert one.history[-1].test_loss != other.history[-1].test_loss


def test_held_out_images_are_the_same_for_all_seeds_and_are_not_trained_on() -> None:
    rest, held_out = hold_out(DATA[0], 20)
    assert (len(rest), len(held_out)) == (40, 20)
    images = [bytes(image.numpy()) for image in torch.cat((rest.images, held_out.images))]
    assert sorted(images) == sorted(bytes(image.numpy()) for image in DATA[0].images)
    assert torch.equal(hold_out(DATA[0], 20)[1].images, held_out.images)


def test_evaluation_can_be_rarer_but_never_misses_the_end() -> None:
    run = train(config(epochs=3, evaluate_every=2, evaluate_train=0), DATA, model=small())
    assert [epoch.test_accuracy is not None for epoch in run.history] == [False, True, True]
    assert run.history[-1].train_accuracy is None
    assert run.history[-1].gap is None


def test_drop_last() -> None:
    run = train(config(batch_size=25, epochs=1, drop_last=True), DATA, model=small())
    assert run.history[0].step == 2


def other_classes(data: Any) -> Any:
    """The same images under other names."""
    return dataclasses.replace(data, classes=(*data.classes, "z"))


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        ({}, {}, "go together"),
        ({"model": "wrn-10-1"}, {"model": small()}, "go together"),
        ({"model": "cnn"}, {}, "32"),
        ({"validation": 60}, {"model": small()}, "validation"),
        ({"batch_size": 59, "accumulation": 2}, {"model": small()}, "drop_last"),
        ({}, {"model": small(), "keep": 0}, "keep"),
        ({}, {"model": small(), "save_every": 0}, "save_every"),
        ({}, {"model": small(), "parallel": "tp"}, "ddp"),
        ({}, {"model": small(), "tensorboard": True}, "out"),
        ({}, {"model": small(), "device": "gpu"}, "device"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: dict[str, Any], arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        train(config(**change), DATA, **arguments)


def test_other_classes_in_the_test_set_are_refused() -> None:
    with pytest.raises(ValueError, match="classes"):
        train(config(), (DATA[0], other_classes(DATA[1])), model=small())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_missing_accelerator_is_named() -> None:
    with pytest.raises(ValueError, match="cuda"):
        train(config(), DATA, model=small(), device="cuda")
