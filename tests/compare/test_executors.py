"""Wherever runs are made, and whoever dies meanwhile, the comparison is the same."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_tasks import TABLE, written
from test_compare import small, timeless

from flatmin.compare import WorkerLost
from flatmin.compare.executor import Pool, cost
from flatmin.compare.job import Job
from flatmin.compare.processes import Here, _settle, processes, usual_workers
from flatmin.compare.work import work
from flatmin.train import Interrupted
from slowly import slow_but

# Its network ends the process that trains it, once: in the middle of the first run of a seed.
DEADLY = (
    "    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))",
    """    return nn.Sequential(nn.Linear(4, 8), Deadly(), nn.Linear(8, 2))


class Deadly(nn.Tanh):
    calls = 0

    def forward(self, x):
        import os, pathlib, signal
        flag = pathlib.Path(__file__).with_name("killed")
        Deadly.calls += 1
        if Deadly.calls == 30 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)""",
)


class Faulty:
    """An executor of which every job dies a few times."""

    def __init__(self, deaths: int, error: BaseException) -> None:
        self.deaths, self.error = deaths, error
        self.tries: dict[str, int] = {}
        self.opened = 0

    def open(self) -> Faulty:
        """Start."""
        self.opened += 1
        return self

    def submit(self, function: Callable[[Job], Any], job: Job, /) -> Any:
        """Call when asked for the result, or die."""

        def result(_: Any) -> Any:
            self.tries[job.key] = self.tries.get(job.key, 0) + 1
            if self.tries[job.key] <= self.deaths:
                raise self.error
            return function(job)

        return type("Future", (), {"result": result})()


@pytest.mark.slow
def test_workers_begin_before_there_is_a_run() -> None:
    with processes(2, "cpu") as start:
        pool: Any = start()
        assert len(pool._processes) == 2


ELSEWHERE = Interrupted("", 143)
ELSEWHERE.process = 0
LOST = [BrokenExecutor("killed"), RuntimeError("a node was lost"), ELSEWHERE]


@pytest.mark.parametrize("error", slow_but(LOST, LOST[0]))
def test_lost_workers_are_replaced(error: BaseException, tmp_path: Path) -> None:
    jobs = [Job.read(job) for job in _jobs(written(tmp_path, TABLE), tmp_path / "runs")]
    plain = Pool(Here, "test")([replace(job, folder=str(tmp_path / "plain")) for job in jobs])
    faulty = Faulty(2, error)
    found = Pool(faulty.open, "test")(jobs)
    assert [run["value"] for run in found] == [run["value"] for run in plain]
    assert set(faulty.tries.values()) == {3}
    assert faulty.opened == (3 if isinstance(error, BrokenExecutor) else 1)


def test_the_longest_run_begins_first_and_each_has_its_place(tmp_path: Path) -> None:
    first, *_ = _jobs(written(tmp_path, TABLE), tmp_path / "runs")
    short, long, middle = (replace(Job.read(first), epochs=n) for n in (1, 3, 2))
    executor = Faulty(0, RuntimeError())
    found = Pool(executor.open, "test")([short, long, middle])
    assert list(executor.tries) == [long.key, middle.key, short.key]
    assert [len(run["epochs"]) for run in found] == [1, 3, 2]


def test_workers_that_die_for_ever_are_reported(tmp_path: Path) -> None:
    jobs = [Job.read(job) for job in _jobs(written(tmp_path, TABLE), tmp_path)]
    pool = Pool(Faulty(99, RuntimeError("no such node")).open, "test")
    with pytest.raises(
        WorkerLost, match=r"2 runs \(base, 1 epochs, seed 0, …\) ended 3 times.*no such"
    ):
        pool(jobs)
    for code in (130, 143):  # this process was asked
        with pytest.raises(Interrupted):
            Pool(Faulty(1, Interrupted("", code)).open, "test")(jobs)
    assert pickle.loads(pickle.dumps(ELSEWHERE)).process == 0  # as it comes from a worker


def _jobs(path: Path, folder: Path) -> list[dict[str, Any]]:
    """The final runs of the base, as JSON."""
    import json

    from flatmin.compare.arms import ARMS
    from flatmin.compare.description import describe
    from flatmin.compare.loading import load_task

    task = load_task(path)
    facts = describe(task)
    job = Job(
        task=str(path),
        digest=task.digest,
        subject=facts["key"],
        data=facts["data"],
        arms=(ARMS["base"],),
        lr=0.1,
        rho=None,
        epochs=1,
        seed=0,
        final=True,
        device="cpu",
        folder=str(folder),
    )
    return [json.loads(replace(job, seed=seed).written()) for seed in (0, 1)]


def test_a_key_tells_what_the_numbers_depend_on(tmp_path: Path) -> None:
    job = Job.read(_jobs(written(tmp_path, TABLE), tmp_path)[0])
    assert Job.read(_jobs(written(tmp_path, TABLE), tmp_path)[0]) == job
    longer = replace(job.arm, name="base × 2", times=2.0)
    assert replace(job, arms=(longer,), folder="/elsewhere", task="/elsewhere.py").key == job.key
    changes: dict[str, Any] = {"lr": 0.2, "epochs": 2, "seed": 1, "final": False, "digest": "x"}
    keys = {replace(job, **{name: value}).key for name, value in changes.items()}
    keys |= {replace(job, arms=(replace(job.arm, average=True),)).key, job.key}
    assert len(keys) == len(changes) + 2
    assert cost(job) == 1.0 and cost(replace(job, arms=(replace(job.arm, minimizer="sam"),))) == 2.0


@pytest.mark.slow
def test_a_damaged_run_is_made_again(tmp_path: Path) -> None:
    job = Job.read(_jobs(written(tmp_path, TABLE), tmp_path)[0])
    first = work(job)
    for damage in ("", "{}", "[1]", job.file.read_text()[:40]):
        job.file.write_text(damage)
        assert {**work(job), "seconds": 0} == {**first, "seconds": 0}


@pytest.mark.slow
def test_threads_are_an_executor_too(tmp_path: Path) -> None:
    path = written(tmp_path, TABLE)
    plain = small(path, epochs=1)
    with ThreadPoolExecutor(1) as pool:
        other = small(path, epochs=1, executor=pool, out=tmp_path / "other")
    assert timeless(other) == timeless(plain)
    assert usual_workers("cpu") >= 1
    assert Here().submit(work, Job.read(_jobs(path, tmp_path)[0])).result()["steps"] == 6


@pytest.mark.slow
def test_threads_of_one_process_do_not_share_its_random_numbers(tmp_path: Path) -> None:
    """Two runs at once would seed one generator, and neither would have its start."""
    alone = """
BUSY = []


def alone():
    BUSY.append(1)
    time.sleep(0.02)
    assert len(BUSY) == 1, "two at once"
    BUSY.pop()

"""
    text = TABLE.replace("import torch\n", "import time\n\nimport torch\n", 1).replace(
        "def model():\n", f"{alone.strip()}\n\n\ndef model():\n    alone()\n"
    )
    path = written(tmp_path, text)
    plain = small(path, epochs=1)
    with ThreadPoolExecutor(4) as pool:
        other = small(path, epochs=1, executor=pool, out=tmp_path / "other")
    assert timeless(other) == timeless(plain)


@pytest.mark.slow
@pytest.mark.distributed
def test_processes_and_one_that_is_killed_in_the_middle_of_a_run(tmp_path: Path) -> None:
    path = written(tmp_path, TABLE, DEADLY)
    (tmp_path / "killed").touch()
    plain = small(path, epochs=6)
    (tmp_path / "killed").unlink()
    for line in (tmp_path / "out").glob("runs/*"):
        line.unlink()
    other = small(path, epochs=6, workers=2, out=tmp_path / "other")
    assert (tmp_path / "killed").exists()
    assert timeless(other) == timeless(plain)


@pytest.mark.slow
@pytest.mark.distributed
def test_workers_end_with_whoever_started_them(tmp_path: Path) -> None:
    import subprocess
    import sys
    import time

    path = written(tmp_path, TABLE, ("lr=0.1", "lr=0.01"))
    words = ["compare", str(path), "--epochs", "100000", "--trials", "1", "--arms", "sam"]
    code = f"from flatmin.cli import main; main({[*words, '--workers', '2']!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    folder = tmp_path / "results/task/runs"
    try:
        while not list(folder.glob("*/step-*.pt")):
            time.sleep(0.1)
            assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    for _ in range(600):
        if not _alive(tmp_path):
            return
        time.sleep(0.1)
    raise AssertionError(f"{_alive(tmp_path)} go on")


def _alive(folder: Path) -> list[int]:
    """Processes that work in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if (entry / "cwd").resolve() == folder.resolve():
                    os.kill(int(entry.name), 0)
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.slow
@pytest.mark.distributed
def test_submitit_on_this_machine(tmp_path: Path) -> None:
    submitit = pytest.importorskip(
        "submitit", reason='submitit is not installed: pip install "flatmin[cluster]"'
    )
    path = written(tmp_path, TABLE)
    executor = submitit.AutoExecutor(folder=tmp_path / "log", cluster="local")
    executor.update_parameters(timeout_min=5)
    other = small(path, epochs=1, seeds=1, executor=executor, out=tmp_path / "other")
    assert timeless(other) == timeless(small(path, epochs=1, seeds=1))


@pytest.mark.slow
@pytest.mark.distributed
def test_dask_on_loopback(tmp_path: Path) -> None:
    distributed = pytest.importorskip(
        "distributed", reason="dask is not installed: pip install distributed"
    )
    path = written(tmp_path, TABLE)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
    ):
        other = small(path, epochs=1, seeds=1, executor=executor, out=tmp_path / "other")
    assert timeless(other) == timeless(small(path, epochs=1, seeds=1))


def test_a_worker_has_its_threads_and_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import queue

    import torch

    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    numbers.put(1)
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
        _settle(2, numbers, gpus=2)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "7" and torch.get_num_threads() == 2
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
        numbers.put(4)  # more workers than GPUs share them
        _settle(2, numbers, gpus=2)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert usual_workers("cuda") == 2
