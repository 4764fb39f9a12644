"""Tables and text: what is trained on, how it is cut, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flatmin.compare.loading import load_task
from flatmin.compare.task import Task
from flatmin.experiments import discover
from flatmin.experiments.others import _text, ext_other_data
from flatmin.experiments.others._table import split
from flatmin.record.page import publish
from flatmin.record.store import read_record, run_item

FOLDER = Path(ext_other_data.__file__).parent


def task(name: str) -> Task:
    return load_task(FOLDER / f"_{name}.py")


@pytest.mark.parametrize(
    ("name", "rows", "parameters"),
    [("digits", 1797, 8970), ("wine", 178, 5251), ("breast_cancer", 569, 6274)],
)
def test_a_table_is_cut_anew_by_each_seed(name: str, rows: int, parameters: int) -> None:
    found = task(name)
    assert found.cuts_by_seed
    assert sum(p.numel() for p in found.model(0).parameters()) == parameters
    (train, test), (other, _), (again, _) = (found.whole(seed) for seed in (0, 1, 0))
    assert (len(train), len(test)) == (rows - rows // 5, rows // 5)
    assert train.fingerprint() == again.fingerprint() != other.fingerprint()


def test_the_test_part_says_nothing_of_the_scale() -> None:
    """Another number in a tested row moves no other row; a constant column stays finite."""
    raw = np.random.default_rng(0).normal(size=(20, 3))
    raw[:, 2] = 7.0
    labels = list(range(20))
    train, test = split(raw, labels, "rows", 0)
    moved = raw.copy()
    moved[int(test.targets[0])] += 100.0
    again, tested = split(moved, labels, "rows", 0)
    assert train.fingerprint() == again.fingerprint()
    assert not torch.equal(test.inputs[0], tested.inputs[0])
    inputs = train.inputs
    assert torch.allclose(inputs.mean(dim=0)[:2], torch.zeros(2), atol=1e-6)
    assert torch.allclose(inputs.std(dim=0)[:2], torch.ones(2))
    assert not inputs[:, 2].any()


def test_the_text_is_cut_where_nothing_overlaps_and_nobody_looks_ahead() -> None:
    train, test = _text.data()
    network = _text.model().eval()
    inputs, targets = train.inputs[0], train.targets[0]
    assert torch.equal(inputs[1:], targets[:-1])  # the next character
    assert (len(train), len(test)) == (_text.WINDOWS, _text.WINDOWS // 2)
    later = inputs.clone()
    later[40:] = (later[40:] + 1) % len(_text.LETTERS)
    with torch.no_grad():
        one, other = network(torch.stack([inputs, later])).unbind()
    assert torch.allclose(one[:, :40], other[:, :40], atol=1e-5)
    assert not torch.allclose(one[:, 40:], other[:, 40:], atol=1e-2)


def found(verdict: str, value: float) -> dict[str, Any]:
    row = {"arm": "sam", "reference": "base", "at": "epochs", "verdict": verdict}
    row |= {"value": value, "low": value - 1, "high": value + 1, "p": 0.01, "detectable": 1.5}
    facts = {"unit": "points", "source": "wine", "parameters": 3}
    facts["examples"] = {"trained on": 1, "held out": 1, "tested on": 1}  # type: ignore[assignment]
    config = {"worth": 0.5, "seeds": 3, "epochs": 2}
    return {
        "answer": "sam.", "differences": [row], "task": facts, "config": config,
        "arms": {}, "commits": ["a"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "holds"), [("helps", True), ("hurts", False), ("no", False), ("undecided", None)]
)
def test_a_verdict_is_that_of_the_comparison(verdict: str, holds: bool | None) -> None:
    record = {"numbers": {"tasks": {"wine": found(verdict, 2.0)}}}
    (said,) = ext_other_data.check(record)
    assert (said.holds, said.claim, said.own) == (holds, "SAM helps on wine (equal epochs)", True)
    assert said.measured.startswith("+2.0 [+1.0, +3.0] points")
    assert said.measured.endswith("undecided") == (holds is None)
    clear = f"SAM {verdict} at equal epochs, +2.0 [+1.0, +3.0] points"
    words = clear if verdict in ("helps", "hurts") else "no difference is clear"
    power = "3 seeds would have shown 1.5 to 1.5 points"
    assert ext_other_data.answer(record) == f"Wine: {words} ({power})."


@pytest.mark.parametrize(("better", "longer", "said"), [
    ("larger", [88.0, 89.0, 90.0], True), ("larger", [92.0, 93.0, 94.0], False),
    ("smaller", [92.0, 93.0, 94.0], True), ("larger", [80.0, 91.0, 99.0], False),
])  # fmt: skip
def test_a_base_that_trained_too_long_is_said(better: str, longer: list[float], said: bool) -> None:
    task = found("undecided", 0.0)
    task["task"]["better"] = better
    base = [90.0, 91.0, 92.1]
    task["arms"] = {"base": {"value": base}, "base × 2": {"value": longer}}
    notes = ext_other_data.notes({"numbers": {"tasks": {"wine": task}}})
    assert any("Twice the epochs are too many" in note for note in notes) == said


def test_unknown_data_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tasks must be some of digits, wine.*got beer"):
        ext_other_data.Config(tasks=("wine", "beer"))
    with pytest.raises(ValueError, match="got none"):
        ext_other_data.Config(tasks=())


@pytest.mark.slow  # trains on a table, and a transformer for an epoch
def test_the_item_compares_on_tables_and_on_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_text, "WINDOWS", 64)
    item = discover()["ext_other_data"]
    config = replace(ext_other_data.QUICK, tasks=("wine",), seeds=2, epochs=2)
    run_item(item, config, "QUICK", tmp_path)
    record = read_record(item, tmp_path)
    assert record is not None
    verdicts = publish(item, record, tmp_path)
    assert len(verdicts) == 4 and all(verdict.own for verdict in verdicts)
    arms = record["numbers"]["tasks"]["wine"]["arms"]
    assert [arms[name]["gradients"] for name in arms] == [[8, 8], [16, 16], [16, 16], [16, 16]]
    assert str(tmp_path) not in (tmp_path / "ext_other_data.json").read_text()
