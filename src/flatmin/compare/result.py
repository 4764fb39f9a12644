"""The record of a comparison: everything that was found, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flatmin.compare.judge import answer, differences, usual_worth
from flatmin.compare.kept import commit
from flatmin.compare.plan import Plan
from flatmin.compare.statistics import mean
from flatmin.compare.trials import Choice, Score, at_edge, best
from flatmin.compare.troubles import troubles

Tried = Mapping[str, Sequence[tuple[Choice, Score]]]


def compared(plan: Plan) -> dict[str, Any]:
    """Search, train, and judge.

    Args:
        plan: What is to be done; its crew makes the runs.

    Returns:
        The record: ``answer``, ``differences``, ``arms``, ``troubles``, ``task`` and ``config``;
        whatever depends on a clock stands in ``seconds`` alone.
    """
    tried = plan.search()
    settings = {name: best(pairs) for name, pairs in tried.items()}
    runs = plan.final(settings)
    facts = {"file": plan.task.path.name, **plan.facts}
    if plan.task.has_loop:
        facts |= {"metric": _metric(runs), "unit": ""}
    values = {name: [run.get("value") for run in found] for name, found in runs.items()}
    worth = plan.asked.worth or usual_worth(facts["unit"], values["base"])
    rows = differences(
        values,
        {
            arm: {at: base.name for at, base in bases.items()}
            for arm, bases in plan.references.items()
        },
        larger=facts["better"] == "larger",
        worth=worth,
        overlap=facts["overlap"],
    )
    arms = {
        arm.name: {
            "epochs": plan.length(arm),
            "lr": settings[arm.name][0],
            "rho": settings[arm.name][1],
            "tried": _listed(tried[arm.name]) if plan.asked.trials > 1 else [],
            "at_edge": plan.asked.trials > 1 and at_edge(tried[arm.name]),
            **_columns(runs[arm.name]),
        }
        for arm in plan.arms
    }
    taken = {name: [run.get("seconds") for run in found] for name, found in runs.items()}
    return {
        "answer": answer(rows, facts["unit"], worth),
        "task": facts,
        "config": {
            "seeds": plan.asked.seeds,
            "epochs": plan.epochs,
            "arms": list(plan.asked.arms),
            "trials": plan.asked.trials,
            "worth": worth,
            "device": plan.asked.device,
        },
        "differences": rows,
        "arms": arms,
        "troubles": troubles(arms, facts, plan.asked.seeds),
        "commits": sorted({run["commit"] for found in runs.values() for run in found} | {commit()}),
        "seconds": {"runs": taken, "epochs": plan.costs.get("seconds", {})},
    }


def _metric(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    names = {run["metric"] for found in runs.values() for run in found if "metric" in run}
    if len(names) != 1:
        raise ValueError(
            f"run() must return the same metric at each call, got {', '.join(sorted(names))}."
            if names
            else "every run diverged; lower lr."
        )
    return str(names.pop())


def _listed(tried: Sequence[tuple[Choice, Score]]) -> list[dict[str, Any]]:
    return [{"lr": lr, "rho": rho, "score": list(score)} for (lr, rho), score in tried]


def _columns(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is left of the runs of an arm: lists over seeds, None where a run diverged."""
    names = ("value", "diverged", "steps", "active", "gradients", "lr_end", "sharpness")
    columns: dict[str, Any] = {name: [run.get(name) for run in runs] for name in names}
    good = [run for run in runs if "held" in run]
    columns["curves"] = {
        "epochs": good[0]["epochs"] if good else [],
        **{name: _curve([run[name] for run in good]) for name in ("held", "running")},
    }
    columns["last"] = [run["held"][-1] if "held" in run else None for run in runs]
    columns["held"] = [run.get("held") for run in runs]
    return columns


def _curve(curves: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Mean over seeds by epoch; None where nothing was finite."""
    means = [mean(list(column)) for column in zip(*curves, strict=True)]
    return [round(point.value, 5) if point.n else None for point in means]
