"""``flatmin measure`` on a stranger's data: the right loss, or one sentence with the remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flatmin.analysis.own_batches import own_batches
from flatmin.cli import main

OWN = (Path(__file__).parent / "strangers.py").read_text()
SMALL = ["--measure", "one-step", "--scalings", "0", "--grid", "0"]


@pytest.fixture(autouse=True)
def _in_a_folder_with_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *__import__("sys").path])
    monkeypatch.delitem(__import__("sys").modules, "own", raising=False)
    monkeypatch.setattr("sys.dont_write_bytecode", True)


def measured(data: str, network: str = "net", *words: str) -> Any:
    assert main(["measure", f"own:{network}", "--data", f"own:{data}", *SMALL, *words]) == 0
    return json.loads(Path("results", "measure.json").read_text())


def loss(
    function: Callable[[Tensor, Tensor], Tensor], targets: Tensor, network: str = "net"
) -> float:
    import own  # type: ignore[import-not-found]

    with torch.no_grad(), torch.random.fork_rng():
        return function(getattr(own, network)().double()(own.X.double()), targets).item()


CLASSES = """
classes pair data_set Singles Stream loader generator
column int32 uint8 boolean one_hot one_hot_bool
"""


@pytest.mark.parametrize("data", CLASSES.split())
def test_classes_in_every_form_mean_cross_entropy(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(data, "net", "--batch-size", "3")
    import own

    assert found["loss"] == pytest.approx(loss(F.cross_entropy, own.Y), rel=1e-14)
    assert (found["loss_function"], found["data"]["examples"]) == ("cross_entropy", 8)
    assert capsys.readouterr().err == ""


def test_a_pair_of_two_rows_is_one_batch() -> None:
    assert measured("two_rows")["data"]["examples"] == 2


@pytest.mark.parametrize("data", ["shuffled", "shuffled_by_torch"])
def test_the_seed_fixes_what_a_shuffled_loader_gives(data: str) -> None:
    digests = []
    for seed in ("0", "0", "1"):
        torch.rand(1)  # the caller's random state moves on
        found = measured(data, "net", "--examples", "3", "--seed", seed)
        digests.append(found["data"]["digest"])
    assert digests[0] == digests[1] != digests[2]


def test_half_precision_is_measured_in_double() -> None:
    found = measured("half")
    import own

    model, inputs = own.net().double(), own.X.half().double()
    expected = F.cross_entropy(model(inputs), own.Y).item()
    assert found["loss"] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("network", ["one", "flat"])
def test_numbers_mean_squared_errors(network: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured("numbers", network)
    import own

    def squared(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.reshape(8) - targets).square().mean()

    expected = loss(squared, own.X.double().sum(1), network)
    assert found["loss"] == pytest.approx(expected, rel=1e-6)  # the targets came in float32
    shown = capsys.readouterr()
    assert "8 examples, mean squared error" in shown.out and shown.err == ""


def test_numbers_that_look_like_classes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert measured("one_hot_float")["loss_function"] == "mse_loss"
    assert "return integers for cross-entropy" in capsys.readouterr().err


@pytest.mark.parametrize("data", ["labels", "true_labels"])
def test_several_labels_mean_binary_cross_entropy(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(data, "net", "--batch-size", "3")
    import own

    targets = own.labels()[0][1].double()
    expected = loss(F.binary_cross_entropy_with_logits, targets)
    assert found["loss"] == pytest.approx(expected, rel=1e-14)
    shown = capsys.readouterr()
    assert "binary cross-entropy of labels" in shown.out
    assert "each is taken for a label" in shown.err


@pytest.mark.parametrize("batch_size", ["8", "3", "1"])
@pytest.mark.parametrize(
    ("data", "network"), [("tokens", "language"), ("partly", "language"), ("ignoring", "net")]
)
def test_targets_that_do_not_count_are_left_out_whatever_the_batches(
    data: str, network: str, batch_size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mean over the tokens or examples that count, by hand."""
    found = measured(data, network, "--batch-size", batch_size)
    import own

    ((inputs, targets),) = getattr(own, data)()
    model = getattr(own, network)().double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    logs = torch.log_softmax(model(inputs), -1).flatten(0, -2)
    kept = targets.flatten() != -100
    picked = logs[kept].gather(1, targets.flatten()[kept][:, None])
    assert found["loss"] == pytest.approx(-picked.mean().item(), rel=1e-14)
    shown = capsys.readouterr()
    assert ("cross-entropy of tokens" in shown.out) == (network == "language")
    assert shown.err == ""


def test_matrices_that_mix_units_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--measure", "one-step", "--scalings", "2", "--examples", "6"]
    found = measured("tokens", "language", *words)
    assert found["certificate"]["mixings"] == "1 of 4 × 4"
    rows = {row["scale"]: row for row in found["rows"]}
    assert rows["T = |w|"]["spread"] < 1e-10 < 1e-3 < rows["T = |w|"]["mixed_spread"]
    shown = capsys.readouterr().out
    assert "matrices that mix units (1 of 4 × 4) keep the function as well" in shown
    assert "spread under one of them, T = |w|: one-step " in shown


@pytest.mark.slow
@pytest.mark.parametrize("network", ["Recurrent", "Cell"])
def test_what_a_forward_makes_has_the_type_of_the_network(network: str) -> None:
    words = ["--measure", "worst-case", "trace", "top-eigenvalue", "--grid", "3"]
    found = measured("classes", network, *words)
    single = measured("classes", network, *words, "--precision", "fp32")
    for row, other in zip(found["rows"], single["rows"], strict=True):
        assert row["value"] == pytest.approx(other["value"], rel=1e-3)
    assert torch.get_default_dtype() == torch.float32
    assert measured("classes", "stubborn", "--precision", "fp32")["loss"] > 0


BAD = {
    "net counts": "these go up to 3 in the shape of the outputs",
    "net nothing": "every target is -100",
    "language square": "may have their classes in the second dimension or in the last",
    "language unequal": "pad them to one length, with -100 where none counts",
    "net float_classes": "return classes as integers",
    "net negative": "the data have a class -99; mark targets that do not count with -100",
    "net complex_numbers": "got complex ones",
    "net texts": "batch 0 holds a list, expected tensors",
    "net arrays": "batch 0 holds a ndarray, expected tensors; convert them by torch.as_tensor",
    "net shorter": "batch 0 has 8 inputs and 6 targets",
    "net longer": "batch 0 has 5 inputs and 8 targets",
    "net unequal_inputs": "batch 0 has 8 and 4 inputs and 8 targets",
    "net later": "batch 1 has 8 inputs and 7 targets",
    "net three": "batch 0 is a tuple of 3, expected a pair",
    "net mapping": "a dict is no sequence of pairs",
    "net scalar": "expected a row of examples",
    "net unequal_shapes": "does not take these data, inputs of shape [8, 2]",
    "net breaks": "KeyError: 'lost'",
    "net words": "must have the shape ['N', 2], got ['N', 4]",
    "one classes": "one number for each example; let it return a logit for each class",
    "flat classes": "one number for each example",
    "stubborn classes": "it makes float32 numbers itself, so measure with --precision fp32",
    "images bytes_of_images": "so give these in floating point",
    "images classes": "name others with --data",
}


@pytest.mark.parametrize("words", BAD)
def test_what_does_not_fit_is_one_sentence(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    network, data = words.split()
    assert main(["measure", f"own:{network}", "--data", f"own:{data}", *SMALL]) == 2
    error = capsys.readouterr().err
    assert BAD[words] in error
    assert error.startswith("flatmin: ") and error.count("\n") == 1
    assert not list(Path.cwd().glob("results/*"))


def test_no_more_is_taken_than_asked_for() -> None:
    def endless() -> Any:
        while True:
            yield torch.zeros(3, 2), torch.zeros(3)

    assert [len(targets) for _, targets in own_batches(endless(), 7, 4)] == [4, 3]
    dictionary = [({"a": torch.zeros(4, 2), "b": torch.zeros(4)}, torch.zeros(4))]
    assert [len(targets) for _, targets in own_batches(dictionary, 3, 2)] == [2, 1]
