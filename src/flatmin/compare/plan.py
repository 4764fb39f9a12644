"""The course of a comparison: costs, search, and the runs that are counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flatmin.compare.arms import ARMS, Arm, base_for, chosen
from flatmin.compare.executor import Crew, cost
from flatmin.compare.job import SEARCH_SEED, Job
from flatmin.compare.task import Task
from flatmin.compare.trials import EXTRA, Choice, Score, further, grid
from flatmin.record.store import once

_SPARE = 0.9  # of a budget of time, for what is not training


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a user asks for.

    Attributes:
        seeds: Starts that are counted.
        epochs: Length of the base; None where ``budget`` says it.
        budget: Seconds that the whole comparison may take.
        arms: Names of arms and of costs.
        trials: Settings that are tried for each arm, and two more; 1 for no search.
        worth: The least difference that matters, in the unit of the metric; None for the usual one.
        device: Where to compute.
        workers: How many runs are made at a time.
    """

    seeds: int
    epochs: int | None
    budget: float | None
    arms: tuple[str, ...]
    trials: int
    worth: float | None
    device: str
    workers: int


class Plan:
    """The jobs of a comparison.

    Args:
        task: What is trained.
        facts: What :func:`flatmin.compare.description.describe` says of it.
        asked: What is wanted.
        folder: Where runs are kept.
        crew: Makes them.

    Attributes:
        epochs: Length of the base.
        costs: Seconds and gradients of an epoch by arm, and of an evaluation; empty where nobody
            asked.
        references: For each arm, the base at equal ``epochs``, and at the other costs.
        arms: All that is trained, the base first.
    """

    def __init__(
        self, task: Task, facts: Mapping[str, Any], asked: Asked, folder: Path, crew: Crew
    ) -> None:
        self.task, self.facts, self.asked, self.folder = task, facts, asked, folder
        others, kinds = chosen(asked.arms, task.own_arms)
        means = [arm.name for arm in others if arm.average and task.has_loop]
        if means:
            raise ValueError(
                f"{', '.join(means)}: the weights of a loop of one's own are not known here; "
                "average them in an arm of the file's own, or define model() and data()."
            )
        self._crew = crew
        self.costs = self._costs(others) if kinds or asked.epochs is None else {}
        self.epochs = asked.epochs or self._affordable(others, kinds)
        self.references = {arm.name: self._references(arm, kinds) for arm in others}
        bases = {base.name: base for found in self.references.values() for base in found.values()}
        self.arms = [*sorted(bases.values(), key=lambda base: base.times), *others]

    def _job(self, arms: Iterable[Arm], **choices: Any) -> Job:
        usual: dict[str, Any] = {
            "task": str(self.task.path),
            "digest": self.task.digest,
            "subject": self.facts["key"],
            "data": self.facts["data"],
            "arms": tuple(arms),
            "lr": self.task.lr,
            "rho": None,
            "epochs": 1,
            "seed": SEARCH_SEED,
            "final": False,
            "device": self.asked.device,
            "folder": str(self.folder),
        }
        return Job(**{**usual, **choices})

    def _costs(self, others: Sequence[Arm]) -> dict[str, Any]:
        # Averaging costs no step: an averaged arm is timed as what it averages.
        timed = {_plain(arm).name: _plain(arm) for arm in [ARMS["base"], *others]}
        if len(timed) == 1:  # a job of one arm would be a run
            timed["again"] = replace(ARMS["base"], name="again")
        return self._crew([self._job(timed.values())])[0]

    def _references(self, arm: Arm, kinds: Sequence[str]) -> dict[str, Arm]:
        found = {"epochs": ARMS["base"]}
        for kind in kinds:
            ratio = self._ratio(arm, kind)
            # A base that differs by less than an epoch is the same one.
            length = round(self.epochs * ratio)
            found[kind] = base_for(ratio) if length != self.epochs else ARMS["base"]
        return found

    def _ratio(self, arm: Arm, kind: str) -> float:
        """What an epoch of an arm costs, in epochs of the base."""
        measured = self.costs[kind]
        always: float = measured[_plain(arm).name] / measured["base"]
        ratio = 1.0 + arm.part * (always - 1.0)
        return round(ratio, 1 if kind == "seconds" else 4)  # seconds are not surer than that

    def length(self, arm: Arm) -> int:
        """Epochs of an arm."""
        return max(1, round(self.epochs * arm.times))

    def search(self) -> dict[str, list[tuple[Choice, Score]]]:
        """Try the settings of all arms; for each arm all that were tried, with their scores.

        Raises:
            ValueError: If no setting of an arm can be trained.
        """
        trials = self.asked.trials
        middles = {arm.name: self.task.lr_of(arm) for arm in self.arms}
        if trials == 1:
            return {arm.name: [((middles[arm.name], arm.rho), (0.0,))] for arm in self.arms}
        if self.task.lr is None:
            raise ValueError(
                f"{self.task.path.name} must say the middle of the learning rates to try, such as "
                "lr = 1e-3, or give --trials 1, which tries none."
            )
        self._crew.expect(self._whole_cost())
        first = self._tried(
            {arm.name: grid(arm, middles[arm.name] or 0.0, trials) for arm in self.arms}
        )
        for name, tried in first.items():
            if max(score for _, score in tried) == (_WORST,):
                raise ValueError(
                    f"every trial of {name} diverged; lower lr in {self.task.path.name}."
                )
        second = self._tried({name: further(tried) for name, tried in first.items()})
        return {name: [*first[name], *second[name]] for name in first}

    def _tried(
        self, settings: Mapping[str, Sequence[Choice]]
    ) -> dict[str, list[tuple[Choice, Score]]]:
        pairs = [(arm, setting) for arm in self.arms for setting in settings[arm.name]]
        runs = self._crew(
            [self._job([arm], lr=lr, rho=rho, epochs=self.length(arm)) for arm, (lr, rho) in pairs]
        )
        found: dict[str, list[tuple[Choice, Score]]] = {arm.name: [] for arm in self.arms}
        for (arm, setting), run in zip(pairs, runs, strict=True):
            found[arm.name].append((setting, self._score(run)))
        return found

    def _score(self, run: Mapping[str, Any]) -> Score:
        if "diverged" in run:
            return (_WORST,)
        value, loss = run["score"]
        return (value if self.facts["better"] == "larger" else -value), -loss

    def final(self, settings: Mapping[str, Choice]) -> dict[str, list[dict[str, Any]]]:
        """Train every arm from every start; for each arm its runs by seed."""
        if self.asked.trials == 1:
            self._crew.expect(self._whole_cost())
        # Seeds outside, so that an interrupted comparison has whole seeds.
        pairs = [(seed, arm) for seed in range(self.asked.seeds) for arm in self.arms]
        runs = self._crew(
            [
                self._job(
                    [arm],
                    lr=settings[arm.name][0],
                    rho=settings[arm.name][1],
                    epochs=self.length(arm),
                    seed=seed,
                    final=True,
                )
                for seed, arm in pairs
            ]
        )
        found: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in self.arms}
        for (_, arm), run in zip(pairs, runs, strict=True):
            found[arm.name].append(run)
        return found

    def _whole_cost(self) -> float:
        each = sum(cost(self._job([arm], epochs=self.length(arm))) for arm in self.arms)
        return each * self._runs_per_arm()

    def _runs_per_arm(self) -> int:
        trials = self.asked.trials
        return self.asked.seeds + (trials + EXTRA if trials > 1 else 0)

    def _affordable(self, others: Sequence[Arm], kinds: Sequence[str]) -> int:
        """Epochs for which the budget suffices; decided once, whatever is asked for later."""
        budget = self.asked.budget or 0.0

        def decide() -> int:
            seconds = self.costs["seconds"]
            ratios = {
                ratio
                for arm in others
                for ratio in (1.0, *(self._ratio(arm, kind) for kind in kinds))
            }
            epoch = sum(ratios) * (seconds["base"] + self.costs["evaluation"])
            for arm in others:
                epoch += seconds["base"] * self._ratio(arm, "seconds") + self.costs["evaluation"]
            whole = epoch * self._runs_per_arm() / (_SPARE * self.asked.workers)
            if budget < whole:
                raise ValueError(
                    f"a budget of {budget:.0f} s is not enough for one epoch of each run, which "
                    f"takes {whole:.0f} s; raise it, or name fewer arms, seeds or trials."
                )
            return int(budget / whole)

        arms = "-".join(sorted(arm.name for arm in others))
        name = f"epochs-{self.facts['key']}-{budget:g}-{arms}-{self.asked.trials}.json"
        return int(once(self.folder / name, decide))


_WORST = float("-inf")


def _plain(arm: Arm) -> Arm:
    """The arm that is timed for another one: it perturbs in all steps, and averages nothing."""
    if arm.part == 1.0 and not arm.average:
        return arm
    wanted = replace(arm, name="", part=1.0, average=False)
    return next(other for other in ARMS.values() if replace(other, name="") == wanted)
