"""Bad input is answered by one sentence with the remedy, before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_tasks import DRAWN, TABLE, written

from flatmin import cli
from flatmin.compare import compare
from flatmin.compare.finite import check_finite
from flatmin.compare.job import Job
from flatmin.compare.loading import load_task

MODEL = "    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))\n"
DATA = "    source = torch.Generator().manual_seed(0)\n"
RESULT = '    return {"score": noise[0].item() + gain, "validation": -abs(arm.lr - 0.1)}\n'
FILES: dict[str, tuple[str, str]] = {
    "no data": (TABLE.replace("def data():", "def date():"), "defines model"),
    "nothing": ("x = 1\n", "defines none of them"),
    "too much": (DRAWN + "\n\ndef model():\n    pass\n", "defines run and model"),
    "syntax": ("def model(:\n", "cannot be imported: SyntaxError"),
    "imports": ("import no_such_module\n" + TABLE, "No module named 'no_such_module'"),
    "other data": (TABLE.replace(DATA, "    source = None\n    torch.seed()\n"), "other data when"),
    "one network": (
        TABLE.replace(MODEL, "    return NET\n") + "\n\nNET = nn.Linear(4, 2)\n",
        "returned the same network",
    ),
    "shared weights": (
        TABLE.replace(MODEL, "    return nn.Sequential(NET)\n") + "\n\nNET = nn.Linear(4, 2)\n",
        "the same weights",
    ),
    "not twice": (
        TABLE.replace(MODEL, "    NETS.pop()\n" + MODEL) + "\n\nNETS = [1]\n",
        r"model\(\) of task.py failed: IndexError: pop from empty list \(task.py, line 13\)",
    ),
    "own generator": (
        TABLE.replace(MODEL, "    torch.seed()\n" + MODEL),
        "returned another network for the same seed",
    ),
    "no network": (
        TABLE.replace(MODEL, "    return 1\n"),
        "must return a torch.nn.Module, got int",
    ),
    "no fit": (TABLE.replace("nn.Linear(8, 2)", "nn.Linear(9, 2)"), "does not take its data"),
    "too few": (TABLE.replace("arange(120)", "arange(4)"), "at least 5 training examples"),
    "a loader": (
        TABLE.replace(
            "return whole.subset", "return torch.utils.data.DataLoader(whole), whole.subset"
        ).replace("whole.subset(torch.arange(120)), ", ""),
        "a DataLoader is no data set; give its dataset",
    ),
    "bare tensors": (
        TABLE.replace(
            "    return whole.subset", "    return inputs, targets\n    return whole.subset"
        ),
        r"a Tensor is no data set; give TensorSet\(inputs, targets\)",
    ),
    "three sets": (
        TABLE.replace("torch.arange(120, 200))", "torch.arange(120, 200)), whole"),
        "got 3 sets",
    ),
    "loss": (
        TABLE + "\n\ndef loss(outputs, targets):\n    return outputs\n",
        "loss must return one real number",
    ),
    "better": (TABLE + "\n\ndef metric(outputs, targets):\n    return 1.0\n", "must say which is"),
    "metric": (
        TABLE + '\nbetter = "larger"\n\n\ndef metric(outputs, targets):\n    return float("nan")\n',
        "metric of task.py must be finite",
    ),
    "better alone": (TABLE + '\nbetter = "smaller"\n', "has no metric, so that the accuracy"),
    "better of a loss": (
        TABLE.replace(".long()", ".float()")
        + '\nbetter = "larger"\n\n\ndef loss(o, t):\n    return o.square().mean()\n',
        "has no metric, so that the loss",
    ),
    "loss as a class": (TABLE + "\nloss = nn.CrossEntropyLoss\n", r"as in CrossEntropyLoss\(\)"),
    "lr beside config": (TABLE + "\nlr = 0.3\n", "lr of task.py is 0.3 and that of its config 0.1"),
    "ends": (TABLE + "\nraise SystemExit(0)\n", "cannot be imported: SystemExit: 0 .*keep what a"),
    "ends later": (
        TABLE.replace(MODEL, "    raise SystemExit(0)\n"),
        r"model\(\) of task.py failed",
    ),
    "no file": (
        TABLE.replace(DATA, "    open('no_such_table.csv')\n"),
        r"data\(\) of task.py failed: FileNotFoundError.*no_such_table",
    ),
    "no network of the world": (
        TABLE.replace(DATA, "    raise OSError('no route to the data')\n"),
        r"data\(\) of task.py failed: OSError: no route",
    ),
    "data of something": (
        TABLE.replace("def data()", "def data(root)"),
        "may take seed and nothing",
    ),
    "no split of a seed": (TABLE.replace("def data()", "def data(seed)"), "same for the seeds 0"),
    "tested on what it is trained on": (
        TABLE.replace(
            "whole.subset(torch.arange(120)), whole.subset(torch.arange(120, 200))", "whole, whole"
        ),
        "the same examples to train on and to test on",
    ),
    "lazy": (TABLE.replace("nn.Linear(8, 2)", "nn.LazyLinear(2)"), "'2.weight' waits for a first"),
    "frozen": (
        TABLE.replace(MODEL, MODEL[:-1] + ".requires_grad_(False)\n"),
        "no parameter requires a gradient",
    ),
    "config": (TABLE.replace('model="own", ', ""), 'must be a TrainConfig with model="own"'),
    "arms": (TABLE + "\narms = {'adam': 3}\n", "must map names to functions"),
    "own arm": (TABLE + "\narms = {'sam': print}\n", "flatmin's own"),
    "nan": (DRAWN.replace(RESULT, "    return 1.0\n"), "must return a mapping"),
    "no metric": (DRAWN.replace('"score": noise[0].item() + gain, ', ""), "must return one metric"),
    "no validation": (DRAWN.replace(', "validation": -abs(arm.lr - 0.1)', ""), "--trials 1"),
    "no lr": (DRAWN.replace("lr = 0.1\n", "", 1), "must say the middle of the learning rates"),
    "no wrap": (DRAWN.replace("arm.wrap(", "("), "never called arm.wrap"),
    "no step": (DRAWN.replace("optimizer.step(closure)", "closure()"), "never stepped"),
    "no second pass": (
        DRAWN.replace("optimizer.step(closure)", "closure()\n        optimizer.step()"),
        "made 1 steps with sam and perturbed in none",
    ),
    "ends in the loop": (DRAWN.replace(RESULT, "    raise SystemExit(0)\n"), r"run\(\) of task.py"),
    "failing loop": (DRAWN.replace(RESULT, "    return {}[seed]\n"), r"run\(\) of task.py failed"),
    "no better": (DRAWN.replace('better = "larger"\n', ""), "must say which is better"),
}


@pytest.mark.filterwarnings("ignore:SAM has never been in perturbed")
@pytest.mark.parametrize("fault", FILES)
def test_a_file_is_refused(fault: str, tmp_path: Path) -> None:
    text, words = FILES[fault]
    assert text not in (TABLE, DRAWN)
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=words) as caught:
        compare(path, epochs=1, seeds=1, trials=4, arms=["sam"], workers=1, out=tmp_path / "out")
    assert "\n" not in str(caught.value) and cli.is_ours(caught.value)
    assert not list((tmp_path / "out").glob("runs/*.json"))


FAILING = """

class Failing(nn.Tanh):
    def forward(self, x):
        if self.training:
            {fault}
        return super().forward(x)
"""


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ('raise ValueError("odd")', r"ValueError: odd \(task.py, line \d+\)"),
        ('torch.empty(2, dtype="odd")', r"TypeError: empty\(\).*\(task.py, line \d+\)"),
        ("torch.optim.SGD([x], lr=-1.0)", r"ValueError: Invalid.*\(sgd.py, line \d+\)"),
    ],
)
def test_what_a_stranger_raises_comes_with_arm_and_file(
    fault: str, words: str, tmp_path: Path
) -> None:
    text = TABLE + FAILING.format(fault=fault)
    path = written(tmp_path, text, ("nn.Tanh()", "Failing()"))
    with pytest.raises(ValueError, match=f"^task.py, sam, 1 epochs, seed 0: {words}"):
        compare(path, epochs=1, seeds=1, trials=1, arms=["sam"], workers=1, out=tmp_path / "out")


MISSING = """
    inputs[{row}, 2] = float("nan")
"""


@pytest.mark.filterwarnings("ignore:SAM skipped a step")
@pytest.mark.parametrize(("row", "part"), [(0, "trained on"), (150, "tested on")])
def test_missing_values_are_no_divergence(row: int, part: str, tmp_path: Path) -> None:
    """An accuracy counts a class for NaN logits too, and a search would be told to lower lr."""
    noise = "    noise = 0.5"
    path = written(tmp_path, TABLE, (noise, MISSING.format(row=row) + noise))
    usual: dict[str, Any] = {"epochs": 1, "seeds": 1, "trials": 1, "arms": ["sam"], "workers": 1}
    with pytest.raises(ValueError, match=f"1 of the .* that are {part} hold numbers that are not"):
        compare(path, **usual, out=tmp_path / "out")
    # A network that fills them in is left alone, and what then diverges has diverged.
    knows = "    return nn.Sequential(Fill(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))\n"
    fill = """

class Fill(nn.Module):
    def forward(self, x):
        return x.nan_to_num()
"""
    path = written(tmp_path, path.read_text().replace(MODEL, knows) + fill)
    found = compare(path, **usual, out=tmp_path / "out")
    assert not any(found.record["arms"]["sam"]["diverged"])
    check_finite(load_task(path), 0, "cpu")


ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "both": ({"epochs": 1, "budget": 60.0}, "give either epochs or a budget"),
    "neither": ({"epochs": None}, "give either epochs or a budget"),
    "seeds": ({"seeds": 0}, "seeds must be at least 1, got 0"),
    "trials": ({"trials": 5}, "trials must be 1"),
    "worth": ({"worth": float("nan")}, "worth must be above 0"),
    "arm": ({"arms": ["adam"]}, "there is no arm 'adam'"),
    "device": ({"device": "tpu"}, "device must be one this machine has"),
    "executor": ({"executor": print}, "executor must have a method submit"),
    "budget": ({"epochs": None, "budget": 1e-9, "seeds": 1}, "not enough for one epoch"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_is_refused(name: str, tmp_path: Path) -> None:
    given, words = ARGUMENTS[name]
    path = written(tmp_path, TABLE)
    usual: dict[str, Any] = {"epochs": 1, "trials": 1, "workers": 1, "out": tmp_path / "out"}
    with pytest.raises(ValueError, match=words):
        compare(path, **{**usual, **given})


class Elsewhere:
    """An executor whose workers see other files."""

    def __init__(self, **changes: str) -> None:
        self.changes = changes

    def submit(self, function: Any, job: Job) -> Any:
        """Call at once, on another machine as it were."""
        numbers = function(replace(job, **self.changes))
        return type("Done", (), {"result": lambda self: numbers})()


@pytest.mark.slow
def test_workers_that_lack_the_file_or_have_another_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, TABLE)
    other = written(tmp_path, TABLE, ("nn.Tanh()", "nn.ReLU()"), name="other.py")
    data = written(tmp_path, TABLE, ("manual_seed(0)", "manual_seed(1)"), name="data.py")
    for changes, words in (
        ({"task": str(tmp_path / "gone.py")}, "cannot be read .* every machine"),
        ({"task": str(other)}, "is another file on this machine"),
        ({"task": str(data), "digest": _digest(data)}, "returned other data"),
    ):
        with pytest.raises(ValueError, match=words):
            compare(path, epochs=1, trials=1, executor=Elsewhere(**changes), out=tmp_path / "out")


def _digest(path: Path) -> str:
    return load_task(path).digest
