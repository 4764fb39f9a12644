"""``compare``: does sharpness awareness help this model?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatmin.compare.arms import USUAL
from flatmin.compare.description import describe
from flatmin.compare.executor import Crew, Executor, Pool
from flatmin.compare.loading import load_task
from flatmin.compare.page import publish
from flatmin.compare.plan import Asked, Plan
from flatmin.compare.processes import Here, processes, usual_workers
from flatmin.compare.result import compared
from flatmin.compare.trials import sides
from flatmin.record.files import require_writable
from flatmin.record.options import check_device
from flatmin.record.provenance import provenance


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found.

    Attributes:
        record: All of it, as plain values; see ``docs/compare.md``.
        folder: Where ``compare.json`` and the page lie.
        before: Where the record of another comparison that lay there is now; None if none did.

    Example:
        >>> Comparison({"answer": "sam helps."}, Path("results")).answer
        'sam helps.'
    """

    record: dict[str, Any]
    folder: Path
    before: Path | None = None

    @property
    def answer(self) -> str:
        """The answer in one sentence."""
        return str(self.record["answer"])


def compare(
    task: Path | str,
    *,
    seeds: int = 5,
    epochs: int | None = None,
    budget: float | None = None,
    arms: Iterable[str] = USUAL,
    trials: int = 6,
    worth: float | None = None,
    out: Path | str | None = None,
    device: str = "cpu",
    workers: int | None = None,
    executor: Executor | None = None,
) -> Comparison:
    """Compare sharpness-aware training with the base, fairly, and say whether it helps.

    All arms share starts and batches. Learning rate and radius of each are chosen on a held-out
    part, with the same number of trials, at full length, from a start that is not counted. The last
    epoch counts, and the test part is read once. What is finished is kept in ``out``, and the same
    call goes on from there; with more seeds only the new ones are trained.

    Args:
        task: A Python file with ``model()`` and ``data()``, or with ``run(arm, seed, budget)``.
        seeds: Starts that are counted.
        epochs: Length of the base.
        budget: Seconds that the whole may take, from which the epochs follow, in place of them.
        arms: What is compared with the base: ``sam``, ``asam``, ``averaged``, ``sam-averaged`` and
            the file's own; and ``gradients`` and ``seconds``, the base for as much of these.
        trials: Settings that are tried for each arm; two more follow. 1 for none.
        worth: The least difference that matters, in the unit of the metric; by default half a point
            of accuracy, or one part in a hundred of another metric.
        out: Where to keep everything; by default ``results/<name of the file>``.
        device: Where to compute: cpu, cuda, ….
        workers: Processes of this machine; by default one for each core or GPU.
        executor: Anything with ``submit``, in place of these processes.

    Returns:
        What was found; also written as ``compare.json`` and ``compare.html``.

    Raises:
        ValueError: If the file or an argument is refused.
        WorkerLost: If workers end again and again without a result.

    Example:
        >>> compare("my_task.py")
        Traceback (most recent call last):
        ValueError: give either epochs or a budget of time, one of the two.
    """
    asked = checked(
        seeds=seeds,
        epochs=epochs,
        budget=budget,
        arms=tuple(arms),
        trials=trials,
        worth=worth,
        device=device,
        workers=workers,
        executor=executor,
    )
    path = Path(task)
    folder = Path(out) if out is not None else Path("results") / path.stem
    with crew_of(asked, executor) as crew:
        return carried_out(path, asked, folder, crew)


def carried_out(path: Path, asked: Asked, folder: Path, crew: Crew) -> Comparison:
    """Compare, with a crew of one's own choice."""
    task = load_task(path)
    facts = describe(task)
    require_writable(folder)
    record = compared(Plan(task, facts, asked, folder.resolve() / "runs", crew))
    record["provenance"] = provenance({"device": asked.device, "seeds": asked.seeds})
    return Comparison(record, folder, publish(record, folder))


@contextmanager
def crew_of(asked: Asked, executor: Executor | None) -> Iterator[Crew]:
    """Whoever makes the runs: the given executor, this process, or several."""
    if executor is not None:
        yield Pool(lambda: executor, "flatmin compare")
    elif asked.workers == 1:
        yield Pool(Here, "flatmin compare")
    else:
        with processes(asked.workers, asked.device) as start:
            yield Pool(start, "flatmin compare")


def checked(
    *,
    seeds: int,
    epochs: int | None,
    budget: float | None,
    arms: tuple[str, ...],
    trials: int,
    worth: float | None,
    device: str,
    workers: int | None,
    executor: object,
) -> Asked:
    """Refuse what cannot be meant."""
    if (epochs is None) == (budget is None):
        raise ValueError("give either epochs or a budget of time, one of the two.")
    for name, value in (("seeds", seeds), ("epochs", epochs), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    for name, amount in (("budget", budget), ("worth", worth)):
        if amount is not None and not 0.0 < amount < float("inf"):
            raise ValueError(f"{name} must be above 0 and finite, got {amount}.")
    sides(trials)
    check_device(device)
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise ValueError(
            f"executor must have a method submit, got a {type(executor).__name__}; give a pool of "
            "concurrent.futures, a submitit.AutoExecutor, or dask's client.get_executor()."
        )
    if budget is not None and executor is not None and workers is None:
        raise ValueError(
            "budget needs workers, the number of runs that the executor makes at once."
        )
    return Asked(
        seeds=seeds,
        epochs=epochs,
        budget=budget,
        arms=arms,
        trials=trials,
        worth=worth,
        device=device,
        workers=workers or usual_workers(device),
    )
