"""Loss functions that are no mean over examples: refused where the batching would show."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin import Ball, EmpiricalLoss
from flatmin.sharpness import m_sharpness, one_step_sharpness

WEIGHT = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
Loss = Callable[[Any, Tensor], Tensor]


def network() -> nn.Module:
    return nn.Linear(4, 3).double()


def data(*sizes: int, ignored: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Examples in batches of these sizes; the first targets are to be ignored."""
    source = torch.Generator().manual_seed(1)
    x = torch.randn(sum(sizes), 4, generator=source, dtype=torch.float64)
    y = torch.randint(3, (sum(sizes),), generator=source)
    y[:ignored] = -100
    return list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True))


def one_hot(loss: Loss) -> Loss:
    return lambda o, t: loss(o, F.one_hot(t, 3).double())


MEANS: dict[str, Loss] = {
    "cross-entropy": F.cross_entropy,
    "label smoothing": nn.CrossEntropyLoss(label_smoothing=0.1),
    "in float32": lambda o, t: F.cross_entropy(o.float(), t),
    "weighted sum by count": lambda o, t: (
        F.cross_entropy(o, t, weight=WEIGHT, reduction="sum") / len(t)
    ),
    "positive weight": one_hot(nn.BCEWithLogitsLoss(pos_weight=WEIGHT)),
    "mean of squares": one_hot(F.mse_loss),
    "batchmean": one_hot(lambda o, t: F.kl_div(o.log_softmax(1), t, reduction="batchmean")),
}
MIXING: dict[str, tuple[Loss, int]] = {
    "class weights": (nn.CrossEntropyLoss(weight=WEIGHT), 0),
    "ignored class": (nn.CrossEntropyLoss(ignore_index=0), 0),
    "ignored targets": (F.cross_entropy, 5),
    "both, smoothed": (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1), 2),
    "root of the mean": (one_hot(lambda o, t: F.mse_loss(o, t).sqrt()), 0),
    "spread over the batch": (lambda o, t: o.std(0, correction=0).mean(), 0),
}
SUMS: dict[str, Loss] = {
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "sum of squares": one_hot(nn.MSELoss(reduction="sum")),
    "sum over a constant": lambda o, t: F.cross_entropy(o, t, reduction="sum") / 6.0,
}


@pytest.mark.parametrize("loss", MEANS.values(), ids=MEANS)
def test_means_do_not_depend_on_the_batches(loss: Loss) -> None:
    model = network()
    whole = EmpiricalLoss(model, loss, data(12))
    for sizes in ([5, 7], [1] * 12, [11, 1]):
        parts = EmpiricalLoss(model, loss, data(*sizes))
        assert parts.value({}).item() == pytest.approx(whole.value({}).item(), rel=1e-6)
    assert m_sharpness(whole, whole.params, Ball(0.1), m=5).value > 0.0


@pytest.mark.parametrize("sizes", [[6, 6], [4, 8], [1] * 12, [11, 1]], ids=str)
@pytest.mark.parametrize(("loss", "ignored"), MIXING.values(), ids=MIXING)
def test_what_is_another_function_for_other_batches_is_refused(
    loss: Loss, ignored: int, sizes: list[int]
) -> None:
    with pytest.raises(ValueError, match="must be a mean over examples, whatever the batch"):
        EmpiricalLoss(network(), loss, data(*sizes, ignored=ignored))


@pytest.mark.parametrize(("loss", "ignored"), MIXING.values(), ids=MIXING)
def test_all_examples_in_one_batch_leave_no_question(loss: Loss, ignored: int) -> None:
    """Then the loss is what the loss function gives; only its parts are refused."""
    model, ((x, y),) = network(), data(12, ignored=ignored)
    one = EmpiricalLoss(model, loss, [(x, y)])
    assert one.value({}).item() == pytest.approx(loss(model(x), y).item(), rel=1e-14)
    assert one_step_sharpness(one, one.params, Ball(0.1)).value > 0.0
    with pytest.raises(ValueError, match="whatever the batch"):
        m_sharpness(one, one.params, Ball(0.1), m=4)


@pytest.mark.parametrize("sizes", [[12], [6, 6], [1] * 12, [12, 12]], ids=str)
@pytest.mark.parametrize("loss", SUMS.values(), ids=SUMS)
def test_sums_are_refused(loss: Loss, sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="divide a sum by len"):
        EmpiricalLoss(network(), loss, data(*sizes))


def test_batches_of_one_class_each_are_no_way_out() -> None:
    """Within each the weights cancel; across their border they do not."""
    x, y = torch.randn(12, 4, dtype=torch.float64), torch.arange(12) // 4
    batches = list(zip(x.split(4), y.split(4), strict=True))
    with pytest.raises(ValueError, match="whatever the batch"):
        EmpiricalLoss(network(), nn.CrossEntropyLoss(weight=WEIGHT), batches)


def test_batch_norm_mixes_examples_by_itself_and_may() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    loss = EmpiricalLoss(model, F.cross_entropy, data(5, 7))
    assert m_sharpness(loss, loss.params, Ball(0.1), m=5).value > 0.0


class OwnLoss(nn.Module):
    """A model that computes its loss, as those of transformers do when they are given labels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = network()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        out = self.layer(x)
        return {"loss": F.cross_entropy(out, labels), "logits": out}


@pytest.mark.parametrize(("ignored", "refused"), [(0, False), (5, True)])
def test_a_loss_that_the_model_computes_is_looked_at_too(ignored: int, refused: bool) -> None:
    batches = [((x, y), y) for x, y in data(6, 6, ignored=ignored)]
    if refused:
        with pytest.raises(ValueError, match="whatever the batch"):
            EmpiricalLoss(OwnLoss(), lambda o, t: o["loss"], batches)
    else:
        EmpiricalLoss(OwnLoss(), lambda o, t: o["loss"], batches)


class Tagger(nn.Module):
    """A class for each step, and what else such networks return."""

    def __init__(self, returns: Callable[[Tensor, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.cells = nn.LSTM(4, 5, batch_first=True)
        self.head, self.returns = nn.Linear(5, 3), returns
        self.double()

    def forward(self, x: Tensor) -> Any:
        out, state = self.cells(x)
        return self.returns(self.head(out), state)


TAGGERS: dict[str, tuple[Callable[[Tensor, Any], Any], Callable[[Any], Tensor]]] = {
    "state": (lambda out, state: (out, state), lambda o: o[0]),
    "object": (lambda out, state: SimpleNamespace(logits=out), lambda o: o.logits),
    "time first": (lambda out, state: out.transpose(0, 1), lambda o: o.transpose(0, 1)),
}


def sentences(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    """Of six steps; most of the first four are to be ignored."""
    source = torch.Generator().manual_seed(1)
    x = torch.randn(sum(sizes), 6, 4, generator=source, dtype=torch.float64)
    y = torch.randint(3, (sum(sizes), 6), generator=source)
    y[:4, 2:] = -100
    return list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True))


@pytest.mark.parametrize(("returns", "pick"), TAGGERS.values(), ids=TAGGERS)
def test_outputs_that_cannot_be_cut_are_no_way_out(
    returns: Callable[[Tensor, Any], Any], pick: Callable[[Any], Tensor]
) -> None:
    def loss(reduction: str = "mean") -> Loss:
        return lambda o, t: F.cross_entropy(pick(o).transpose(1, 2), t, reduction=reduction)

    model = Tagger(returns)
    with pytest.raises(ValueError, match="whatever the batch"):
        EmpiricalLoss(model, loss(), sentences(4, 4))
    with pytest.raises(ValueError, match="divide a sum by len"):
        EmpiricalLoss(model, loss("sum"), sentences(4, 4))
    parts = EmpiricalLoss(model, loss(), sentences(4, 4), weight=lambda t: (t != -100).sum())
    whole = EmpiricalLoss(model, loss(), sentences(8))
    torch.testing.assert_close(parts.value({}), whole.value({}), rtol=1e-13, atol=0)
    kept = [(x, y.clamp(min=0)) for x, y in sentences(3, 5)]  # nothing is ignored
    assert EmpiricalLoss(model, loss(), kept).value({}) > 0.0


def test_rounding_of_a_network_that_is_asked_again_is_no_mixing() -> None:
    model = Tagger(TAGGERS["state"][0]).bfloat16()
    batches = [(x.bfloat16(), y.clamp(min=0)) for x, y in sentences(3, 5)]
    loss: Loss = lambda o, t: F.cross_entropy(o[0].transpose(1, 2), t)  # noqa: E731
    assert EmpiricalLoss(model, loss, batches).value({}) > 0.0


class TimeFirst(nn.Module):
    """Inputs and outputs with steps along the first dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = network()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


def test_what_cannot_be_checked_is_said_once_and_with_the_remedy() -> None:
    def loss(o: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(o.permute(1, 2, 0), t)

    def turned(*sizes: int) -> list[tuple[Tensor, Tensor]]:
        return [(x.transpose(0, 1), y) for x, y in sentences(*sizes)]

    model = TimeFirst()
    with pytest.warns(RuntimeWarning, match="could not be checked") as told:
        EmpiricalLoss(model, loss, turned(4, 3, 2))
    assert len(told) == 1
    assert told[0].filename == __file__
    assert "weight=lambda targets: (targets != -100).sum()" in str(told[0].message)
    # Where it does not matter, or the caller knows, nothing is said: warnings are errors here.
    EmpiricalLoss(model, loss, turned(8))
    EmpiricalLoss(model, loss, turned(*[1] * 5))
    EmpiricalLoss(model, loss, turned(4, 4), weight=lambda t: (t != -100).sum())


def test_losses_of_a_fixed_number_of_examples_are_believed() -> None:
    """They say nothing about parts, in one batch or in several alike."""
    share = torch.rand(6, dtype=torch.float64)

    def fixed(outputs: Tensor, targets: Tensor) -> Tensor:
        return (share * F.cross_entropy(outputs, targets, reduction="none")).mean()

    assert EmpiricalLoss(network(), fixed, data(6)).value({}) > 0.0


def test_a_network_that_has_diverged_is_left_to_the_measure() -> None:
    model = network()
    nn.init.constant_(model.weight, torch.nan)
    assert EmpiricalLoss(model, F.cross_entropy, data(6, 6)).value({}).isnan()


WEIGHED: dict[str, tuple[Loss, int, Callable[[Tensor], Any]]] = {
    "class weights": (nn.CrossEntropyLoss(weight=WEIGHT), 0, lambda t: WEIGHT[t].sum()),
    "ignored class": (nn.CrossEntropyLoss(ignore_index=0), 0, lambda t: (t != 0).sum()),
    "ignored targets": (F.cross_entropy, 5, lambda t: int((t != -100).sum())),
}


@pytest.mark.parametrize("name", WEIGHED)
def test_with_the_weight_of_a_batch_the_batching_does_not_matter(name: str) -> None:
    loss, ignored, weight = WEIGHED[name]
    model = network()
    # All of the first batch may be ignored: it has no mean, and no weight.
    parts = EmpiricalLoss(model, loss, data(5, 2, 7, ignored=ignored), weight=weight)
    whole = EmpiricalLoss(model, loss, data(14, ignored=ignored))
    for one, other in zip(
        parts.value_and_grad(parts.params), whole.value_and_grad(whole.params), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-15)
    vector = {key: torch.ones_like(t) for key, t in parts.params.items()}
    torch.testing.assert_close(
        parts.hvp(parts.params, vector), whole.hvp(whole.params, vector), rtol=1e-12, atol=1e-14
    )
    ball = Ball(0.1)
    single = m_sharpness(
        EmpiricalLoss(model, loss, data(14, ignored=ignored), weight=weight),
        parts.params,
        ball,
        m=5,
    )
    cut = m_sharpness(parts, parts.params, ball, m=5)
    assert cut.value == pytest.approx(single.value, rel=1e-12)
    # The negative: without the weight it is refused.
    with pytest.raises(ValueError, match=r"weight=lambda targets"):
        EmpiricalLoss(model, loss, data(5, 2, 7, ignored=min(ignored, 3)))


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_weights_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="weight must give a finite number of at least 0"):
        EmpiricalLoss(network(), F.cross_entropy, data(4, 4), weight=lambda t: bad)
    with pytest.raises(ValueError, match="at least one example that counts"):
        EmpiricalLoss(network(), F.cross_entropy, data(4, 4), weight=lambda t: 0.0)


def test_a_wrong_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a mean over examples, whatever the batch"):
        EmpiricalLoss(
            network(), F.cross_entropy, data(5, 6), weight=lambda t: float((t == 1).sum() + 1)
        )
