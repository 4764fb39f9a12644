"""A comparison is what its parts are by themselves; what is finished is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_tasks import DRAWN, TABLE, written

from flatmin.compare import Comparison, compare
from flatmin.compare.description import describe
from flatmin.compare.loading import load_task
from flatmin.compare.troubles import _active
from flatmin.train import evaluate, train


def small(path: Path, **options: Any) -> Comparison:
    """The least comparison, in this process."""
    usual: dict[str, Any] = {"seeds": 2, "epochs": 2, "trials": 1, "arms": ["sam"], "workers": 1}
    return compare(path, **{**usual, "out": path.parent / "out", **options})


def timeless(found: Comparison) -> dict[str, Any]:
    """The record but for clocks and places."""
    record: dict[str, Any] = json.loads((found.folder / "compare.json").read_text())
    return {key: value for key, value in record.items() if key not in ("seconds", "provenance")}


@pytest.mark.slow
def test_each_value_is_that_of_a_run_by_hand(tmp_path: Path) -> None:
    path = written(tmp_path, TABLE)
    found = small(path, arms=["sam", "gradients"])
    task = load_task(path)
    fit, held, test = task.parts(0)
    assert [len(part) for part in (fit, held, test)] == [96, 24, 80]
    for name, epochs, wrapped in (("base", 2, {}), ("base × 2", 4, {}), ("sam", 2, {"rho": 0.05})):
        arm = found.record["arms"][name]
        for seed in (0, 1):
            config = replace(
                task.config,
                epochs=epochs,
                seed=seed,
                minimizer="sam" if wrapped else "none",
                **wrapped,
            )
            run = train(config, (fit, held), model=task.model(seed))
            _, accuracy = evaluate(run.model, test, config=config)
            assert arm["value"][seed] == pytest.approx(100 * accuracy, abs=1e-9)
            assert arm["gradients"][seed] == run.history[-1].gradients
            assert arm["held"][seed][-1] == pytest.approx(
                100 * (run.history[-1].test_accuracy or 0.0), abs=1e-3
            )
    assert found.record["arms"]["sam"]["active"] == [12, 12]
    rows = {row["at"]: row for row in found.record["differences"]}
    assert rows["gradients"]["reference"] == "base × 2"
    sam, base = (found.record["arms"][name]["value"] for name in ("sam", "base"))
    assert rows["epochs"]["each"] == pytest.approx([a - b for a, b in zip(sam, base, strict=True)])


@pytest.mark.slow
def test_the_search_is_scored_on_the_held_out_part_of_a_start_that_is_not_counted(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, TABLE)
    found = small(path, trials=4, seeds=1, epochs=1)
    task = load_task(path)
    fit, held, _ = task.parts(0)
    for name, wrapped in (("base", False), ("sam", True)):
        arm = found.record["arms"][name]
        assert len(arm["tried"]) == 6
        for one in arm["tried"]:
            chosen = {"minimizer": "sam", "rho": one["rho"]} if wrapped else {}
            config = replace(task.config, epochs=1, seed=1_000_000, lr=one["lr"], **chosen)
            last = train(config, (fit, held), model=task.model(1_000_000)).history[-1]
            assert one["score"] == pytest.approx(
                [100 * (last.test_accuracy or 0.0), -(last.test_loss or 0.0)], abs=1e-6
            )
        best = max(arm["tried"], key=lambda one: one["score"])
        assert (arm["lr"], arm["rho"]) == (best["lr"], best["rho"])


@pytest.mark.slow
def test_no_run_is_made_twice_and_more_seeds_add_theirs_alone(tmp_path: Path) -> None:
    path = written(tmp_path, TABLE)
    first = small(path, trials=4, epochs=1)
    runs = {file: file.stat().st_mtime_ns for file in (tmp_path / "out/runs").glob("*.json")}
    assert len(runs) == 2 * (4 + 2) + 2 * 2
    again = small(path, trials=4, epochs=1)
    assert timeless(again) == timeless(first)
    more = small(path, trials=4, epochs=1, seeds=3)
    now = {file: file.stat().st_mtime_ns for file in (tmp_path / "out/runs").glob("*.json")}
    assert runs.items() <= now.items() and len(now) == len(runs) + 2
    assert more.record["arms"]["sam"]["value"][:2] == first.record["arms"]["sam"]["value"]


@pytest.mark.slow
def test_a_changed_file_is_another_task(tmp_path: Path) -> None:
    first = small(written(tmp_path, TABLE), epochs=1)
    changed = small(written(tmp_path, TABLE, ("nn.Tanh()", "nn.ReLU()")), epochs=1)
    assert changed.record["task"]["key"] != first.record["task"]["key"]
    assert len(list((tmp_path / "out/runs").glob("*.json"))) == 8


@pytest.mark.slow
def test_averaged_weights_are_the_mean_over_the_last_epochs(tmp_path: Path) -> None:
    path = written(tmp_path, TABLE)
    found = small(path, arms=["averaged"], epochs=3, seeds=1)
    task = load_task(path)
    fit, held, test = task.parts(0)
    config, folder = replace(task.config, epochs=3), tmp_path / "by-hand"
    train(config, (fit, held), model=task.model(0), out=folder, keep=3)
    kept = sorted(folder.glob("step-*.pt"), key=lambda path: int(path.name.split("-")[1]))
    states = [torch.load(path, weights_only=True)["network"] for path in kept[-2:]]
    network = task.model(0)
    mean = {name: (value + states[1][name]) / 2 for name, value in states[0].items()}
    network.load_state_dict(mean)
    _, accuracy = evaluate(network, test, config=task.config)
    assert found.record["arms"]["averaged"]["value"] == [pytest.approx(100 * accuracy)]


def test_an_own_loop_is_asked_and_counted(tmp_path: Path) -> None:
    found = small(written(tmp_path, DRAWN), arms=["sam", "gradients"], trials=4, epochs=10, seeds=4)
    sam = found.record["arms"]["sam"]
    assert sam["steps"] == [10] * 4 and sam["active"] == [10] * 4 and sam["gradients"] == [20] * 4
    assert found.record["arms"]["base × 2"]["steps"] == [20] * 4
    assert sam["lr"] == 0.1  # where its validation is best
    draws = [torch.randn(2, generator=torch.Generator().manual_seed(seed))[1] for seed in range(4)]
    row = found.record["differences"][0]
    assert row["each"] == pytest.approx([1.0 + draw.item() for draw in draws])
    assert found.record["task"]["metric"] == "score"


STRANGE = """

class Peer(torch.optim.SGD):  # as a SAM that is not flatmin's
    def step(self, closure):
        closure()
        return super().step(closure)


def msam(parameters):
    return flatmin.optim.MSAM(torch.optim.SGD(parameters, lr=0.1, momentum=0.9))


arms = {"sam-of-a-peer": lambda parameters: Peer(parameters, lr=0.1), "msam": msam}
"""


def test_gradients_of_an_own_arm_are_counted_where_it_makes_them(tmp_path: Path) -> None:
    text = "import flatmin\n" + DRAWN.replace("if arm.rho", "if arm.name != 'base'") + STRANGE
    arms = ["sam-of-a-peer", "msam", "sam", "gradients"]
    found = small(written(tmp_path, text), arms=arms, epochs=4, seeds=1).record
    gradients = {name: arm["gradients"] for name, arm in found["arms"].items()}
    assert gradients == {
        "base": [4],
        "base × 2": [8],
        "sam-of-a-peer": [8],
        "msam": [4],  # one a step, at the perturbed point
        "sam": [8],
    }
    at = {row["arm"]: row["reference"] for row in found["differences"] if row["at"] == "gradients"}
    assert at == {"sam-of-a-peer": "base × 2", "sam": "base × 2"}
    said = found["troubles"][0]
    assert "msam in 4 of 4" in said and "sam-of-a-peer" not in said


def test_only_an_arm_of_flatmins_own_is_said_to_be_the_base() -> None:
    idle = {"active": [0], "steps": [4]}
    assert _active({"base": idle, "msam": idle, "sam-of-a-peer": idle}) == ""
    assert "late-sam **in none of 4 steps**" in _active({"late-sam": idle, "msam": idle})


@pytest.mark.slow
def test_late_sam_perturbs_in_the_last_quarter(tmp_path: Path) -> None:
    arms = ["late-sam", "sam", "gradients", "sam-averaged"]
    found = small(written(tmp_path, TABLE), arms=arms, epochs=4, seeds=1)
    late = found.record["arms"]["late-sam"]
    assert (late["steps"], late["active"], late["gradients"]) == ([24], [6], [30])
    # Each arm has a base for as many gradients as itself.
    references = {
        row["arm"]: row["reference"]
        for row in found.record["differences"]
        if row["at"] == "gradients"
    }
    assert references == {"late-sam": "base × 1.25", "sam": "base × 2", "sam-averaged": "base × 2"}
    for name, base in references.items():
        gradients = [found.record["arms"][arm]["gradients"] for arm in (name, base)]
        assert gradients[0] == gradients[1]
    loop = written(tmp_path, DRAWN, ("lr=arm.lr))", "lr=arm.lr), steps=budget)"))
    own = small(loop, arms=["late-sam"], epochs=8, out=tmp_path / "loop")
    assert own.record["arms"]["late-sam"]["active"] == [2, 2]
    with pytest.raises(ValueError, match="with the number of steps of the run"):
        small(written(tmp_path, DRAWN), arms=["late-sam"], out=tmp_path / "none")


@pytest.mark.slow
def test_an_arm_of_ones_own(tmp_path: Path) -> None:
    own = "arms = {'adam': lambda parameters: torch.optim.Adam(parameters, lr=0.03)}\n"
    path = written(tmp_path, TABLE + own)
    found = small(path, arms=["adam"], seeds=1)
    task = load_task(path)
    fit, held, test = task.parts(0)
    config = replace(task.config, optimizer="adam", options={}, lr=0.03, epochs=2)
    run = train(config, (fit, held), model=task.model(0))
    _, accuracy = evaluate(run.model, test, config=config)
    arm = found.record["arms"]["adam"]
    assert arm["lr"] == 0.03
    assert arm["value"] == [pytest.approx(100 * accuracy)]


@pytest.mark.slow
def test_a_split_of_its_own_for_each_seed(tmp_path: Path) -> None:
    text = TABLE.replace("def data():", "def data(seed):").replace(
        "    return whole.subset(torch.arange(120)), whole.subset(torch.arange(120, 200))",
        "    order = torch.randperm(200, generator=torch.Generator().manual_seed(seed))\n"
        "    return whole.subset(order[:120]), whole.subset(order[120:])",
    )
    found = small(written(tmp_path, text), epochs=1)
    assert found.record["task"]["overlap"] == pytest.approx(80 / 96)
    assert any("its own split" in sentence for sentence in found.record["troubles"])


@pytest.mark.slow
def test_a_loss_without_a_metric_is_compared_itself(tmp_path: Path) -> None:
    text = TABLE.replace("(inputs[:, 0] * inputs[:, 1] + noise > 0).long()", "inputs[:, :2] + 1.0")
    text += "\n\nloss = nn.functional.mse_loss\n"
    found = small(written(tmp_path, text), epochs=1)
    task = found.record["task"]
    assert (task["metric"], task["unit"], task["better"]) == ("loss", "", "smaller")
    values = found.record["arms"]["sam"]["value"], found.record["arms"]["base"]["value"]
    row = found.record["differences"][0]
    assert row["each"] == pytest.approx([b - s for s, b in zip(*values, strict=True)])


@pytest.mark.slow
def test_the_page_shows_the_answer_first(tmp_path: Path) -> None:
    found = small(written(tmp_path, TABLE), arms=["sam", "seconds"], epochs=1)
    page = (tmp_path / "out/compare.html").read_text()
    assert page.index(found.answer.replace("<", "&lt;")) < page.index("<table>")
    for words in (
        "What could have gone wrong",
        "sam in 12 of 12 steps",
        "The base is sgd on batches of 16, its loss cross-entropy, its schedule cosine.",
        "base: momentum",
        "worst case",
        "detectable",
    ):
        assert words in page
    assert (tmp_path / "out/compare.png").stat().st_size > 10_000
    assert found.record["provenance"]["commit"]


@pytest.mark.parametrize("row", [3, 100, 150])
def test_counts_are_no_classes_also_where_a_part_could_be(row: int, tmp_path: Path) -> None:
    """Two outputs, mean and spread, and a count: most are 0 or 1, and one somewhere is 2."""
    text = (
        TABLE
        + """

def loss(outputs, targets):
    return ((outputs[:, 0] - targets) ** 2 * torch.exp(-outputs[:, 1]) + outputs[:, 1]).mean()
"""
    )
    facts = describe(load_task(written(tmp_path, text)))
    assert (facts["metric"], facts["better"]) == ("accuracy", "larger")
    rare = ("    whole = TensorSet", f"    targets[{row}] = 2\n    whole = TensorSet")
    found = small(written(tmp_path, text, rare), epochs=1, seeds=1, trials=1).record
    task, run = found["task"], next((tmp_path / "out/runs").glob("*.json"))
    assert (task["metric"], task["unit"], task["better"]) == ("loss", "", "smaller")
    numbers = json.loads(run.read_text())
    assert numbers["score"][0] == numbers["score"][1] == numbers["held"][-1]
    assert all(value < 10 for arm in found["arms"].values() for value in arm["value"])
