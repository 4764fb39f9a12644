"""The tasks of examples/compare run, and are compared by what they say they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from flatmin.compare import compare

EXAMPLES = Path(__file__).parents[2] / "examples" / "compare"
# File → metric, whether the larger is better, overlap of the splits.
TASKS = {
    "digits": ("accuracy", "larger", 0.0),
    "table": ("accuracy", "larger", 114 / 364),
    "text": ("metric", "smaller", 0.0),
    "trainer": ("accuracy", "larger", 0.0),
}


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(TASKS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", TASKS)
def test_an_example(name: str, tmp_path: Path) -> None:
    if name == "trainer":
        pytest.importorskip("transformers", reason="transformers is not installed")
    metric, better, overlap = TASKS[name]
    found = compare(
        EXAMPLES / f"{name}.py",
        epochs=1,
        seeds=1,
        trials=1,
        arms=["sam", "gradients"],
        workers=1,
        out=tmp_path,
    )
    task, arms = found.record["task"], found.record["arms"]
    assert (task["metric"], task["better"]) == (metric, better)
    assert task["overlap"] == pytest.approx(overlap)
    assert arms["sam"]["active"] == arms["sam"]["steps"] == arms["base"]["steps"]
    assert arms["base × 2"]["gradients"] == arms["sam"]["gradients"]
    assert all(value is not None for arm in arms.values() for value in arm["value"])
