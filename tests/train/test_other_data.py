"""Tables, numbers and tokens: the loop against one written out by hand, and what is refused."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_runs import DATA, KINDS, config, same_weights, small
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from flatmin import ASAM
from flatmin.data import TensorSet, as_data_set
from flatmin.train import evaluate, train
from flatmin.train.goal import Goal
from flatmin.train.parts import hold_out

OTHERS = [kind for kind in KINDS if kind != "images"]
TOKENS = torch.arange(40).view(20, 2) % 5
WORDS = (TensorSet(TOKENS, TOKENS), TensorSet(TOKENS[:6], TOKENS[:6]))


class Next(nn.Module):
    """Logits [N, classes, positions] of tokens [N, positions]."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens).transpose(1, 2)


def words() -> Next:
    """The same start every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Next()


@pytest.mark.parametrize("kind", ["table", "numbers", "tokens"])
def test_loop_equals_the_plain_one(kind: str) -> None:
    data, goal = KINDS[kind].data, KINDS[kind].goal
    chosen = config(minimizer="asam", rho=0.1, precision="fp64", options={"momentum": 0.9})
    run = train(chosen, data, model=KINDS[kind].network(), **goal)

    torch.manual_seed(0)
    model = KINDS[kind].network().double()
    base = torch.optim.SGD(model.named_parameters(), lr=0.05, momentum=0.9)
    optimizer = ASAM(base, rho=0.1, model=model)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(base, 12)
    order = torch.Generator().manual_seed(0)
    loss_function = goal.get("loss", F.cross_entropy)
    losses: list[float] = []
    for _ in range(2):
        losses.clear()
        for rows in torch.randperm(60, generator=order).split(10):
            inputs, targets = data[0].inputs, data[0].targets[rows]
            if isinstance(inputs, dict):
                arguments = {name: tensor[rows] for name, tensor in inputs.items()}
            else:
                arguments = {"input": inputs[rows]}
            optimizer.zero_grad()
            loss = loss_function(model(**arguments), targets)
            loss.backward()
            losses.append(loss.item())
            with optimizer.perturbed():
                loss_function(model(**arguments), targets).backward()
            optimizer.step()
            schedule.step()
    pairs = zip(run.model.parameters(), model.parameters(), strict=True)
    assert max((a - b).abs().max().item() for a, b in pairs) <= 1e-12
    assert run.history[-1].running_loss == pytest.approx(sum(losses) / 6, abs=1e-12)


@pytest.mark.parametrize("kind", OTHERS)
def test_accumulation_precision_and_held_out_part(kind: str) -> None:
    data, goal = KINDS[kind].data, KINDS[kind].goal

    def end(**changes: Any) -> Any:
        network = KINDS[kind].network()
        for module in network.modules():  # a piece has its own statistics and its own dropout
            if isinstance(module, nn.BatchNorm1d | nn.Dropout):
                module.eval()
        return train(config(validation=15, minimizer="sam", **changes), data, model=network, **goal)

    whole, pieces = end(precision="fp64"), end(precision="fp64", accumulation=3)
    rough = end(precision="bf16")
    pairs = zip(whole.model.parameters(), pieces.model.parameters(), strict=True)
    assert max((a - b).abs().max().item() for a, b in pairs) <= 1e-12
    assert all(value.dtype == torch.float32 for value in rough.model.parameters())
    assert not same_weights(whole.model, rough.model.double())
    last = whole.history[-1]
    name = "metric" if goal else "accuracy"
    found = (last.validation_loss, getattr(last, f"validation_{name}"))
    held_out = hold_out(as_data_set(data[0]), 15)[1]
    assert found == evaluate(
        whole.model, held_out, config=config(precision="fp64", validation=15), **goal
    )
    assert last.step == 10
    assert (last.test_accuracy is None) == bool(goal)
    assert (last.test_metric is None) == (not goal)


@pytest.mark.parametrize("kind", OTHERS)
def test_start_and_batches_depend_on_the_seed_alone(kind: str) -> None:
    first: dict[Any, float] = {}
    for seed in (0, 1):
        for minimizer in ("none", "asam"):
            chosen = config(seed=seed, minimizer=minimizer, epochs=1, batch_size=40, drop_last=True)
            network = KINDS[kind].network()
            run = train(chosen, KINDS[kind].data, model=network, **KINDS[kind].goal)
            first[seed, minimizer] = run.history[0].running_loss  # that of the first batch
    assert first[0, "none"] == first[0, "asam"] != first[1, "none"]


def test_several_targets_an_example_have_their_mean() -> None:
    run = train(config(lr=0.5), WORDS, model=words())
    logits = run.model(TOKENS[:6])
    expected = F.cross_entropy(logits, TOKENS[:6]).item()
    right = (logits.argmax(dim=1) == TOKENS[:6]).double().mean().item()
    assert run.history[-1].test_loss == pytest.approx(expected, rel=1e-6)
    assert run.history[-1].test_accuracy == pytest.approx(right)


def test_a_given_cross_entropy_is_the_usual_one() -> None:
    one = train(config(precision="fp64"), DATA, model=small())
    other = train(config(precision="fp64"), DATA, model=small(), loss=nn.CrossEntropyLoss())
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    assert max((a - b).abs().max().item() for a, b in pairs) <= 1e-12
    assert one.history[-1].test_accuracy == other.history[-1].test_accuracy


def test_outputs_that_are_no_numbers_are_wrong() -> None:
    logits = torch.tensor([[1.0, 0.0], [math.nan, 0.0], [math.nan] * 2, [-math.inf, 0.0]])
    goal = Goal()
    assert float(goal.metric_sum(logits, torch.tensor([0, 0, 0, 1]))) == 2  # a class may be masked


def test_integers_that_name_no_output_are_no_classes() -> None:
    """Counts, say, with a loss that takes two outputs for mean and spread: its loss is reported."""
    outputs = torch.zeros(3, 2)
    for targets, known in (([0, 1, 1], True), ([0, 1, 2], False), ([0, -1, 1], False)):
        found = float(Goal(F.mse_loss).metric_sum(outputs, torch.tensor(targets)))
        assert math.isnan(found) != known
    # What a loss leaves out is no class, and leaves the others what they are.
    for ignored, loss in ((-100, F.mse_loss), (-1, nn.CrossEntropyLoss(ignore_index=-1))):
        assert float(Goal(loss).metric_sum(outputs, torch.tensor([0, 1, ignored]))) == 1


def test_a_plain_tensor_data_set_is_its_tensors() -> None:
    table = KINDS["table"]
    plain = tuple(TensorDataset(part.inputs, part.targets) for part in table.data)
    one = train(config(), table.data, model=table.network())
    assert same_weights(one.model, train(config(), plain, model=table.network()).model)


def doubled(outputs: Tensor, targets: Tensor) -> Tensor:
    """Another loss."""
    return 2 * F.mse_loss(outputs, targets)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": doubled}, "loss was torch.nn.functional.mse_loss and is .*doubled"),
        ({"metric": None}, "metric was torch.nn.functional.l1_loss and is the usual one"),
        ({"loss": functools.partial(F.huber_loss, delta=0.5)}, r"huber_loss\(delta=0.5\)"),
        ({"data": tuple(part.subset(torch.arange(20)) for part in KINDS["numbers"].data)}, "other"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    kind = KINDS["numbers"]
    given = {"data": kind.data, **kind.goal}
    train(config(), model=kind.network(), out=tmp_path, **given)
    with pytest.raises(ValueError, match=words):
        train(config(), model=kind.network(), out=tmp_path, resume=True, **{**given, **change})


class Weighted(nn.Module):
    """A loss that would have to be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.weight * F.mse_loss(outputs, targets)


TABLE, NUMBERS = KINDS["table"].data, KINDS["numbers"].data
FLAT = tuple(TensorSet(part.inputs, part.targets[:, 0]) for part in NUMBERS)
BELOW = tuple(TensorSet(part.inputs, part.targets - 1) for part in TABLE)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(
    ("kind", "given", "error", "words"),
    [
        ("numbers", {}, TypeError, "Cross-entropy takes classes, integers from 0, .*float32"),
        ("numbers", {"loss": nn.MSELoss(reduction="sum")}, ValueError, "must be a mean over exam"),
        ("numbers", {"loss": nn.MSELoss(reduction="none")}, TypeError, r"shape \[10, 1\]"),
        ("numbers", {"loss": F.mse_loss, "data": FLAT}, ValueError, r"\[10, 1\] and \[10\]"),
        ("numbers", {"loss": Weighted()}, ValueError, "parameters, which nobody would train"),
        ("numbers", {"loss": "mse"}, TypeError, "loss must be a function .* got str"),
        (
            "numbers",
            {"loss": F.mse_loss, "metric": lambda o, t: (o - t).amax()},
            ValueError,
            "metr",
        ),
        ("table", {"loss": nn.CrossEntropyLoss(torch.tensor([1.0, 9.0]))}, ValueError, "mean over"),
        ("table", {"data": BELOW}, ValueError, "the data have a class -1"),
        ("table", {"data": (TABLE[0], DATA[1])}, ValueError, "both be image sets, or neither"),
        ("tokens", {"data": TABLE}, TypeError, "forward"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    kind: str, given: dict[str, Any], error: type[Exception], words: str
) -> None:
    given = {"data": KINDS[kind].data, **given}
    with pytest.raises(error, match=words) as caught:
        train(config(), model=KINDS[kind].network(), **given)
    assert "\n" not in str(caught.value)


def test_named_networks_and_smoothing_are_for_the_usual_data_and_loss() -> None:
    with pytest.raises(ValueError, match="wrn-10-1 takes image sets, and the data are a TensorSet"):
        train(config(model="wrn-10-1"), TABLE)
    with pytest.raises(ValueError, match="label_smoothing belongs to the cross-entropy"):
        train(config(label_smoothing=0.1), DATA, model=small(), loss=F.cross_entropy)
