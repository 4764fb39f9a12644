"""Looking from Python: the numbers of the library, the network left as it was, one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

from flatmin.analysis import MEASURES, Look, look
from flatmin.ball import Ball
from flatmin.data import TensorSet
from flatmin.objective import EmpiricalLoss
from flatmin.scale import Elementwise
from flatmin.sharpness import one_step_sharpness

QUICK: dict[str, Any] = {"steps": 2, "samples": 2, "scalings": 1}


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def data(count: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 2, generator=generator), torch.arange(count) % 3


@pytest.mark.slow
def test_the_numbers_are_those_of_the_library() -> None:
    model, (x, y) = network(), data()
    ball = Ball(0.3, scale=Elementwise())
    found = look(model, (x, y), ball=ball, **QUICK)
    twin = network().double().eval()
    objective = EmpiricalLoss(twin, F.cross_entropy, [(x.double(), y)])
    w = objective.params
    assert found.numbers["one-step"] == one_step_sharpness(objective, w, ball).value
    assert found.loss == objective.value(w).item()
    assert found.objective.value(w).item() == found.loss
    assert list(found.numbers) == list(MEASURES)
    errors = {name for name, error in found.errors.items() if error is not None}
    assert errors == {"average", "trace"}
    spreads = dict(found.spreads)
    for name in ("rounding-8-bit", "rounding-4-bit"):  # steps do not follow what reads a unit
        assert spreads.pop(name) > 1e-3
    assert all(spread is not None and spread < 1e-9 for spread in spreads.values())
    assert found.certificate == {
        "copies": 1,
        "units": 12,
        "reason": None,
        "mixings": "",
    }  # before and behind the normalization
    control = [row for row in found.rows if row["scale"] == "T = 1"]
    assert len(control) == len(MEASURES) and control[0]["spread"] > 1e-2


def state_of(model: nn.Module) -> dict[str, Any]:
    return {
        "tensors": {name: t.clone() for name, t in model.state_dict().items()},
        "types": [t.dtype for t in model.state_dict().values()],
        "modes": [module.training for module in model.modules()],
        "wanted": [p.requires_grad for p in model.parameters()],
        "gradients": [p.grad for p in model.parameters()],
        "places": [p.data_ptr() for p in model.parameters()],
    }


def test_the_network_and_the_random_state_stay_as_they_were() -> None:
    model = network().train()
    model[0].bias.requires_grad_(False)
    model[1].eval()
    before, random = state_of(model), torch.get_rng_state()
    loader = DataLoader(TensorDataset(*data()), batch_size=4, shuffle=True)
    look(model, loader, measures=["average", "trace"], **QUICK).plot_landscape(grid=3)
    after = state_of(model)
    for name, tensor in before.pop("tensors").items():
        assert torch.equal(tensor, after["tensors"][name]), name
    after.pop("tensors")
    assert before == after
    assert torch.equal(random, torch.get_rng_state())
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("form", ["pair", "batches", "loader", "data set", "flatmin's"])
def test_data_in_every_form_give_the_same_numbers(form: str) -> None:
    x, y = data()
    forms: dict[str, Any] = {
        "pair": (x, y),
        "batches": [(x[:7], y[:7]), (x[7:], y[7:])],
        "loader": DataLoader(TensorDataset(x, y), batch_size=3),
        "data set": TensorDataset(x, y),
        "flatmin's": TensorSet(x, y),
    }
    found = look(network(), forms[form], measures=["one-step"], scalings=0)
    expected = look(network(), (x, y), measures=["one-step"], scalings=0)
    assert found.numbers["one-step"] == pytest.approx(expected.numbers["one-step"], rel=1e-12)
    assert found.record["data"]["digest"] == expected.record["data"]["digest"]


def test_a_shuffled_loader_gives_the_same_examples_for_the_same_seed() -> None:
    loader = DataLoader(TensorDataset(*data()), batch_size=4, shuffle=True)
    digests = []
    for seed in (0, 0, 1):
        torch.rand(1)  # the caller's random state moves on
        found = look(network(), loader, measures=["one-step"], scalings=0, examples=8, seed=seed)
        digests.append(found.record["data"]["digest"])
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.slow
def test_a_part_of_the_data_is_said_to_be_one() -> None:
    some = look(network(), data(), examples=8, measures=["trace"], **QUICK)
    assert "the first 8 examples" in repr(some)
    whole = look(network(), data(), examples=20, measures=["trace"], **QUICK)
    assert "the first" not in repr(whole) and "20 examples" in repr(whole)
    assert some.record["data"]["digest"] != whole.record["data"]["digest"]


def test_of_a_compiled_network_the_one_that_was_compiled_is_measured() -> None:
    compiled = torch.compile(network(), backend="eager")
    found = look(compiled, data(), measures="one-step", scalings=2)  # type: ignore[arg-type]
    expected = look(network(), data(), measures="one-step", scalings=2)
    assert found.numbers == expected.numbers and found.spreads == expected.spreads
    assert found.record["certificate"]["copies"] == 2


def test_a_pruned_network_is_that_with_zeros() -> None:
    """Pruning leaves a weight that is the result of a product, which no copy is made of."""
    pruned, zeroed = network(), network()
    prune.l1_unstructured(pruned[0], "weight", 0.5)  # type: ignore[index]
    zeroed[0].weight.data *= pruned[0].weight_mask  # type: ignore[index]
    quick = {**QUICK, "measures": ["one-step", "worst-case"]}
    found, expected = look(pruned, data(), **quick), look(zeroed, data(), **quick)
    assert found.loss == expected.loss
    assert found.numbers == pytest.approx(expected.numbers, rel=1e-12)


def test_a_loss_of_ones_own() -> None:
    def smoothed(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, label_smoothing=0.1)

    x, y = data()
    found = look(network(), (x, y), loss=smoothed, measures=["one-step"], scalings=0)
    assert found.loss == pytest.approx(smoothed(network().double().eval()(x.double()), y).item())


def test_a_loss_with_class_weights_in_several_batches_takes_what_it_divides_by() -> None:
    quick: dict[str, Any] = {"measures": ["one-step"], "scalings": 0}
    weights = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    loss = nn.CrossEntropyLoss(weight=weights)
    whole = look(network(), data(), loss=loss, **quick)
    with pytest.raises(ValueError, match="say what it divides by, as in weight=lambda targets"):
        look(network(), data(), loss=loss, batch_size=7, **quick)

    def divisor(targets: Tensor) -> Tensor:
        return weights[targets].sum()

    found = look(network(), data(), loss=loss, weight=divisor, batch_size=7, **quick)
    assert found.loss == pytest.approx(whole.loss, rel=1e-12)
    assert found.numbers["one-step"] == pytest.approx(whole.numbers["one-step"], rel=1e-12)


def test_it_prints_as_a_table_at_once_or_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["one-step", "average"]
    found = look(network(), data(), measures=names, title="mine", verbose=True, **QUICK)
    printed = capsys.readouterr().out
    assert repr(found).startswith(printed)  # the remarks come last
    assert printed.startswith("mine: 51 parameters\n")
    assert len(printed.splitlines()) == 6 + len(names)


def test_a_control_of_the_same_scale_is_left_out() -> None:
    found = look(network(), data(), ball=Ball(0.1), measures=["one-step"], scalings=0)
    assert [row["scale"] for row in found.rows] == ["T = 1"]


def test_the_landscape_is_computed_once_for_a_grid() -> None:
    found = look(network(), data(), measures=["one-step"], scalings=0)
    figure = found.plot_landscape(grid=3)
    land = found.record["landscape"]
    assert len(figure.axes) == 3  # with the bar of colors
    found.plot_landscape(grid=3)
    assert found.record["landscape"] is land
    found.plot_landscape(grid=5)
    assert len(found.record["landscape"]["grid"]) == 5


@pytest.mark.slow
def test_a_page_needs_no_other_file(tmp_path: Path) -> None:
    found = look(
        network(), data(), measures=["one-step", "trace"], title="a <b>", samples=2, scalings=0
    )
    found.save_html(tmp_path / "without.html")
    assert "<img" not in (tmp_path / "without.html").read_text()
    found.plot_landscape(grid=3)
    found.save_html(tmp_path / "with.html")
    page = (tmp_path / "with.html").read_text()
    assert "a &lt;b&gt;" in page and "data:image/png;base64," in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert f"{found.numbers['trace']:.3g}" in page


def frozen() -> nn.Module:
    return network().requires_grad_(False)


def stubborn() -> nn.Module:
    model = network()
    model.held = model[0].weight.t()  # type: ignore[index]  # a view, which no copy would follow
    return model


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "network": (lambda: look(F.relu, data()), TypeError, "must be a torch.nn.Module"),  # type: ignore[arg-type]
    "weights": (
        lambda: look(network().state_dict(), data()),  # type: ignore[arg-type]
        TypeError,
        "fill it by load_state_dict",
    ),
    "wrapped": (lambda: look(nn.DataParallel(network()), data()), TypeError, "pass model.module"),
    "copy": (lambda: look(stubborn(), data()), ValueError, "shares memory with"),
    "frozen": (lambda: look(frozen(), data()), ValueError, "no parameter with requires_grad"),
    "data": (lambda: look(network(), data()[0]), TypeError, "one pair of inputs and a tensor"),
    "lengths": (lambda: look(network(), (data()[0], data()[1][:5])), TypeError, "20 inputs and 5"),
    "fit": (lambda: look(nn.Linear(3, 2), data()), ValueError, "does not take these data"),
    "measure": (
        lambda: look(network(), data(), measures=["flat"]),
        ValueError,
        "no measure 'flat'",
    ),
    "ball": (
        lambda: look(network(), data(), ball=0.5),  # type: ignore[arg-type]
        TypeError,
        "ball must be a flatmin.Ball, such as Ball(0.05)",
    ),
    "control": (
        lambda: look(network(), data(), control=0.5),  # type: ignore[arg-type]
        TypeError,
        "control must be a flatmin.Ball",
    ),
    "dtype": (
        lambda: look(network(), data(), dtype=torch.int64),
        ValueError,
        "dtype must be a floating type",
    ),
    "names": (
        lambda: look(network(), [{"x": data()[0], "labels": data()[1]}]),
        TypeError,
        'b.pop("labels")',
    ),
    "numpy": (
        lambda: look(network(), tuple(t.numpy() for t in data())),
        TypeError,
        "numpy's arrays are no tensors; convert them by torch.as_tensor",
    ),
    "three": (
        lambda: look(network(), [(*data(), torch.arange(20))]),
        TypeError,
        "a tuple of 3, expected a pair; make one, such as ((b[0], b[1]) for b in loader)",
    ),
    "weight": (lambda: look(network(), data(), weight=len), ValueError, "give loss as well"),
    "none": (lambda: look(network(), data(), measures=[]), ValueError, "at least one measure"),
    "samples": (lambda: look(network(), data(), samples=1), ValueError, "at least 2, got 1"),
    "steps": (lambda: look(network(), data(), steps=0), ValueError, "at least 1, got 0"),
    "scalings": (lambda: look(network(), data(), scalings=-1), ValueError, "at least 0, got -1"),
    "examples": (lambda: look(network(), data(), examples=0), ValueError, "at least 1, got 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_one_sentence(case: str) -> None:
    made, kind, sentence = BAD[case]
    with pytest.raises(kind, match=re.escape(sentence)):
        made()


def test_a_landscape_needs_two_points() -> None:
    found = look(network(), data(), measures=["one-step"], scalings=0)
    assert isinstance(found, Look)
    with pytest.raises(ValueError, match="grid must be at least 2, got 1"):
        found.plot_landscape(grid=1)
