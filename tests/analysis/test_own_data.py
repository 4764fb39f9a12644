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

OWN = """
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

X = torch.linspace(-1, 1, 24).reshape(8, 3)
Y = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])


def net(outputs=2):
    torch.manual_seed(3)
    return nn.Linear(3, outputs)


def one():
    return net(1)


def flat():
    return nn.Sequential(net(1), nn.Flatten(0))


class Recurrent(nn.Module):
    def __init__(self, **made):
        super().__init__()
        self.net, self.made = net(), made

    def forward(self, x):
        state = torch.zeros(len(x), 2, **self.made)
        return torch.cat((self.net(x)[..., None], state[..., None]), -1).sum(-1)


class Cell(nn.Module):
    def __init__(self, **made):
        super().__init__()
        self.cell, self.made = nn.RNNCell(3, 2), made

    def forward(self, x):
        return self.cell(x, torch.zeros(len(x), 2, **self.made))


def stubborn():
    return Cell(dtype=torch.float32)


def images():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))


def classes():
    return [(X, Y)]


def pair():
    return X, Y


def two_rows():
    return X[:2], Y[:2]


def data_set():
    return TensorDataset(X, Y)


class Singles(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, k):
        return X[k], int(Y[k])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y))


def loader():
    return DataLoader(Singles(), batch_size=3)


def generator():
    return ((X[k : k + 3], Y[k : k + 3]) for k in (0, 3, 6))


def column():
    return [(X, Y[:, None])]


def int32():
    return [(X, Y.int())]


def uint8():
    return [(X, Y.byte())]


def boolean():
    return [(X, Y.bool())]


def one_hot():
    return [(X, torch.nn.functional.one_hot(Y))]


def one_hot_bool():
    return [(X, torch.nn.functional.one_hot(Y).bool())]


def half():
    return [(X.half(), Y)]


def one_hot_float():
    return [(X, torch.nn.functional.one_hot(Y).float())]


def numbers():
    return [(X, X.sum(1))]


def several():
    return [(X, torch.ones(8, 2, dtype=torch.int64))]


def float_classes():
    return [(X, Y.float())]


def negative():
    return [(X, Y - 100)]


def complex_numbers():
    return [(X, Y * 1j)]


def texts():
    return [(X, ["a"] * 8)]


def arrays():
    return [(X.numpy(), Y.numpy())]


def shorter():
    return [(X, Y[:6])]


def longer():
    return [(X[:5], Y)]


def unequal_inputs():
    return [((X, X[:4]), Y)]


def later():
    return [(X, Y), (X, Y[:7])]


def three():
    return [(X, Y, Y)]


def mapping():
    return {"x": X, "y": Y}


def scalar():
    return [(X, torch.tensor(1))]


def unequal_shapes():
    return [(X, Y), (X[:, :2], Y)]


def breaks():
    yield X, Y
    raise KeyError("lost")


def bytes_of_images():
    return [(torch.ones(8, 1, 2, 2, dtype=torch.uint8), Y)]


def words():
    return [(torch.zeros(8, 5, 3), torch.zeros(8, 5, dtype=torch.int64))]
"""
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
    "net several": "some rows have not exactly one 1",
    "net float_classes": "return classes as integers",
    "net negative": "the data have a class -100; leave",
    "net complex_numbers": "got complex ones",
    "net texts": "batch 0 holds a list, expected tensors",
    "net arrays": "batch 0 holds a ndarray, expected tensors",
    "net shorter": "batch 0 has 8 inputs and 6 targets",
    "net longer": "batch 0 has 5 inputs and 8 targets",
    "net unequal_inputs": "batch 0 has 8 and 4 inputs and 8 targets",
    "net later": "batch 1 has 8 inputs and 7 targets",
    "net three": "batch 0 is a tuple of 3, expected a pair",
    "net mapping": "a dict is no sequence of pairs",
    "net scalar": "expected a row of examples",
    "net unequal_shapes": "does not take these data, inputs of shape [8, 2]",
    "net breaks": "KeyError: 'lost'",
    "net words": "must have the shape ['N', 2], got ['N', 5]",
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
