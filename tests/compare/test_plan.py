"""Costs decide which bases an arm is compared with, and what a budget of time buys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from small_tasks import DRAWN, TABLE, written

from flatmin.compare import timing
from flatmin.compare.description import describe
from flatmin.compare.executor import cost
from flatmin.compare.job import SEARCH_SEED, Job
from flatmin.compare.loading import load_task
from flatmin.compare.plan import Asked, Plan
from flatmin.compare.task import Task


class Drawn:
    """A crew that trains nothing: costs are given, and values come from a function of the job."""

    def __init__(self, seconds: dict[str, float], value: Any = lambda job: 0.0) -> None:
        self.seconds, self.value = seconds, value
        self.jobs: list[Job] = []
        self.expected = 0.0

    def expect(self, costs: float) -> None:
        """Note what is to come."""
        self.expected = costs

    def __call__(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Give numbers."""
        self.jobs += jobs
        return [self._timed(job) if len(job.arms) > 1 else self._run(job) for job in jobs]

    def _timed(self, job: Job) -> dict[str, Any]:
        names = [arm.name for arm in job.arms]
        gradients = {arm.name: 1.0 if arm.minimizer == "none" else 2.0 for arm in job.arms}
        return {
            "seconds": {name: self.seconds[name] for name in names},
            "gradients": gradients,
            "evaluation": 0.5,
            "commit": "",
        }

    def _run(self, job: Job) -> dict[str, Any]:
        value = self.value(job)
        return {"score": [value, 0.0], "value": value, "seconds": 1.0, "commit": ""}


def plan(folder: Path, crew: Drawn, text: str = TABLE, **options: Any) -> Plan:
    """A plan for the table, or another task."""
    usual: dict[str, Any] = {
        "seeds": 3,
        "epochs": 10,
        "budget": None,
        "arms": ("sam", "gradients", "seconds"),
        "trials": 4,
        "worth": None,
        "device": "cpu",
        "workers": 1,
    }
    task = load_task(written(folder, text))
    return Plan(task, describe(task), Asked(**{**usual, **options}), folder / "runs", crew)


SECONDS = {"base": 1.0, "sam": 2.26, "asam": 2.34, "again": 1.0}


def test_references_by_cost(tmp_path: Path) -> None:
    arms = ("sam", "asam", "late-sam", "averaged", "sam-averaged", "gradients", "seconds")
    made = plan(tmp_path, Drawn(SECONDS), arms=arms)
    found = {
        arm: {cost: base.name for cost, base in bases.items()}
        for arm, bases in made.references.items()
    }
    assert found == {
        "sam": {"epochs": "base", "gradients": "base × 2", "seconds": "base × 2.3"},
        "asam": {"epochs": "base", "gradients": "base × 2", "seconds": "base × 2.3"},
        "late-sam": {"epochs": "base", "gradients": "base × 1.25", "seconds": "base × 1.3"},
        "averaged": {"epochs": "base", "gradients": "base", "seconds": "base"},
        "sam-averaged": {"epochs": "base", "gradients": "base × 2", "seconds": "base × 2.3"},
    }
    assert [made.length(arm) for arm in made.arms[:5]] == [10, 12, 13, 20, 23]
    assert made.length(made.arms[-1]) == 10


def test_a_base_that_differs_by_less_than_an_epoch_is_the_same(tmp_path: Path) -> None:
    crew = Drawn({**SECONDS, "sam": 1.04})
    made = plan(tmp_path, crew, arms=("sam", "seconds"))
    assert made.references["sam"]["seconds"].name == "base"
    assert [arm.name for arm in made.arms] == ["base", "sam"]


def test_nothing_is_timed_that_nobody_asked_for(tmp_path: Path) -> None:
    crew = Drawn({})
    assert plan(tmp_path, crew, arms=("sam",)).costs == {}
    assert crew.jobs == []
    crew = Drawn(SECONDS)
    plan(tmp_path, crew, arms=("averaged", "seconds"))  # timed as the base itself
    assert [arm.name for arm in crew.jobs[0].arms] == ["base", "again"]


def test_each_arm_has_the_same_trials_at_its_full_length(tmp_path: Path) -> None:
    crew = Drawn(SECONDS, lambda job: -abs((job.lr or 0.0) - 0.2))
    made = plan(tmp_path, crew)
    tried = made.search()
    assert {name: len(pairs) for name, pairs in tried.items()} == dict.fromkeys(
        ("base", "base × 2", "base × 2.3", "sam"), 6
    )
    search = crew.jobs[1:]
    assert {(job.seed, job.final) for job in search} == {(SEARCH_SEED, False)}
    assert {job.arm.name: job.epochs for job in search} == {
        "base": 10,
        "base × 2": 20,
        "base × 2.3": 23,
        "sam": 10,
    }
    settings = {name: pairs[0][0] for name, pairs in tried.items()}
    runs = made.final(settings)
    counted = crew.jobs[1 + len(search) :]
    assert [job.seed for job in counted] == [0] * 4 + [1] * 4 + [2] * 4  # whole seeds first
    assert all(job.final for job in counted) and len(runs["sam"]) == 3
    assert crew.expected == pytest.approx(sum(cost(job) for job in crew.jobs[1:]))


def test_a_budget_buys_epochs_and_is_kept(tmp_path: Path) -> None:
    crew = Drawn(SECONDS)
    made = plan(tmp_path, crew, epochs=None, budget=1000.0, arms=("sam",), trials=1, seeds=2)
    # Two seeds of (1 + 0.5) s an epoch of the base, and (2.3 + 0.5) s of sam; nine tenths of it.
    assert made.epochs == int(0.9 * 1000 / (2 * (1.5 + 2.8)))
    more = plan(tmp_path, crew, epochs=None, budget=1000.0, arms=("sam",), trials=1, seeds=9)
    assert more.epochs == made.epochs
    with pytest.raises(ValueError, match="a budget of 5 s is not enough for one epoch of each run"):
        plan(tmp_path, crew, epochs=None, budget=5.0, arms=("sam",), trials=1, seeds=2)


def test_an_arm_that_always_diverges_is_refused(tmp_path: Path) -> None:
    class Diverging(Drawn):
        def _run(self, job: Job) -> dict[str, Any]:
            return {"diverged": "x", "commit": ""} if job.rho else super()._run(job)

    with pytest.raises(ValueError, match=r"every trial of sam diverged; lower lr in task.py"):
        plan(tmp_path, Diverging(SECONDS)).search()


def test_weights_of_an_own_loop_cannot_be_averaged(tmp_path: Path) -> None:
    asked = plan(tmp_path, Drawn(SECONDS), arms=("averaged",)).asked
    task = load_task(written(tmp_path, DRAWN))
    with pytest.raises(ValueError, match="averaged: the weights of a loop of one's own"):
        Plan(task, describe(task), asked, tmp_path, Drawn(SECONDS))


def test_what_a_loop_does_but_once_is_no_cost_of_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call fills a cache of data; then an arm that costs as much is as long."""
    calls = []

    def looped(task: Task, job: Job) -> dict[str, Any]:
        calls.append(job.arm.name)
        return {"seconds": 3.0 if len(calls) == 1 else 0.1, "gradients": 10, "steps": 10}

    monkeypatch.setattr(timing, "looped", looped)
    crew = Drawn({"base": 1.0, "sam": 1.0})
    made = plan(tmp_path, crew, DRAWN, arms=("sam", "seconds"))
    (job,) = crew.jobs
    assert timing.timed(made.task, job)["seconds"] == {"base": 0.1, "sam": 0.1}
    assert calls == ["base", *["base", "sam"] * 3]  # in turns, after one that is not counted
