"""Several processes train the network that one would."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from small_runs import KINDS, image_set

from flatmin.data import Augment
from flatmin.train import Interrupted, TrainConfig, load_checkpoint, newest_checkpoint, train
from flatmin.train.distributed import join

pytestmark = [pytest.mark.slow, pytest.mark.distributed]  # processes that import torch

# 42 images in batches of 11, 11, 11 and 9: shares differ. Twenty steps in all.
DATA = (replace(image_set(42, 0, size=32), augment=Augment()), image_set(15, 1, size=32))


def config(**changes: Any) -> TrainConfig:
    """The report's network in double precision."""
    values = {"model": "cnn", "epochs": 5, "batch_size": 11, "lr": 0.05, "precision": "fp64"}
    return TrainConfig(**{**values, **changes})


RUNS = {
    f"{minimizer}-{parallel}": (
        config(
            minimizer=minimizer,
            rho=None if minimizer == "none" else 0.5,
            optimizer=optimizer,
            accumulation=pieces,
            label_smoothing=0.1,
        ),
        parallel,
    )
    for parallel, pieces in (("ddp", 1), ("fsdp", 2))
    for minimizer, optimizer in (("none", "sgd"), ("sam", "adam"), ("asam", "sgd"))
}

# Without statistics of a process's own, and with the same dropout for whoever has which examples.
OTHERS = {
    f"{kind}-{parallel}": (
        config(
            model="own",
            minimizer="asam",
            rho=0.5,
            optimizer="adam",
            accumulation=pieces,
        ),
        parallel,
    )
    for parallel, pieces in (("ddp", 1), ("fsdp", 2))
    for kind in KINDS
    if kind != "images"
}


def still(kind: str) -> torch.nn.Module:
    """A network of small runs that treats every example alike."""
    network = KINDS[kind].network()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.Dropout):
            module.eval()
    return network


def _member(rank: int, folder: Path, action: Callable[[int], None]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    action(rank)
    dist.destroy_process_group()


def in_two_processes(folder: Path, action: Callable[[int], None]) -> None:
    """Copy this warm process twice, and let the copies meet."""
    torch.multiprocessing.start_processes(
        _member, args=(folder, action), nprocs=2, start_method="fork"
    )


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs, by two processes that start once."""
    folder = tmp_path_factory.mktemp("two")

    def run_all(rank: int) -> None:
        for name, (chosen, parallel) in RUNS.items():
            train(chosen, DATA, out=folder / name, parallel=parallel)
        # A linear layer of sequences gives a view on the CPU, which nothing here writes to.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
        for name, (chosen, parallel) in OTHERS.items():
            kind = KINDS[name.partition("-")[0]]
            network = still(name.partition("-")[0])
            out = folder / name
            train(chosen, kind.data, model=network, out=out, parallel=parallel, **kind.goal)

    in_two_processes(folder, run_all)
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_equal_one(trained_by_two: Path, name: str) -> None:
    chosen, _ = RUNS[name]
    alone = train(chosen, DATA)
    found = newest_checkpoint(trained_by_two / name)
    assert found is not None
    state = found[1]
    assert state["place"]["step"] == alone.history[-1].step == 20
    ours = alone.model.state_dict()
    assert max((ours[key] - value).abs().max() for key, value in state["network"].items()) <= 1e-10
    assert state["history"][-1]["test_loss"] == pytest.approx(alone.history[-1].test_loss, abs=1e-9)
    assert state["history"][-1]["running_loss"] == pytest.approx(
        alone.history[-1].running_loss, abs=1e-9
    )
    files = sorted(path.name for path in (trained_by_two / name).iterdir())
    assert len(files) == 3  # two checkpoints and one log: only one process writes


@pytest.mark.parametrize("name", OTHERS)
def test_two_processes_equal_one_on_other_data(trained_by_two: Path, name: str) -> None:
    kind = KINDS[name.partition("-")[0]]
    network = still(name.partition("-")[0])
    alone = train(OTHERS[name][0], kind.data, model=network, **kind.goal)
    found = newest_checkpoint(trained_by_two / name)
    assert found is not None
    ours, history = alone.model.state_dict(), found[1]["history"][-1]
    theirs = found[1]["network"]
    # Rounding grows in attention, with which vector units a processor has: up to 1.3e-10 were seen.
    assert max((ours[key] - value).abs().max() for key, value in theirs.items()) <= 1e-9
    for field in ("running_loss", "test_loss", "test_metric" if kind.goal else "test_accuracy"):
        assert history[field] == pytest.approx(getattr(alone.history[-1], field), abs=1e-9)


def test_the_network_did_move(trained_by_two: Path) -> None:
    """Else the equality above would say little."""
    states = {
        name: newest_checkpoint(trained_by_two / name)[1]["network"]["features.0.weight"]
        for name in RUNS
    }
    assert (states["none-ddp"] - states["asam-ddp"]).abs().max() > 1e-5


def test_another_number_of_processes_is_refused(trained_by_two: Path) -> None:
    with pytest.raises(ValueError, match="written by 2 processes, and these are 1"):
        train(RUNS["none-ddp"][0], DATA, out=trained_by_two / "none-ddp", resume=True)


@pytest.mark.slow
def test_stop_on_one_process_stops_all_and_resumes_with_the_same_bits(tmp_path: Path) -> None:
    """With BatchNorm, whose statistics differ from process to process, spread by FSDP."""
    import signal

    chosen = TrainConfig(
        model="wrn-10-1", epochs=2, batch_size=16, minimizer="asam", optimizer="adam", lr=0.001
    )
    data = (replace(image_set(64, 0), augment=Augment()), image_set(16, 1))

    def interrupted(rank: int) -> None:
        train(chosen, data, out=tmp_path / "whole", parallel="fsdp")
        real = torch.optim.Adam.step
        steps = []

        def step(self: Any, *arguments: Any) -> Any:
            steps.append(1)
            if rank == 1 and len(steps) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(self, *arguments)

        torch.optim.Adam.step = step  # type: ignore[method-assign]
        with pytest.raises(Interrupted, match="SIGTERM after step 3"):
            train(chosen, data, out=tmp_path / "cut", parallel="fsdp")
        torch.optim.Adam.step = real  # type: ignore[method-assign]
        train(chosen, data, out=tmp_path / "cut", parallel="fsdp", resume=True)

    in_two_processes(tmp_path, interrupted)
    whole, cut = (newest_checkpoint(tmp_path / name) for name in ("whole", "cut"))
    assert whole is not None
    assert cut is not None
    for key, value in whole[1]["network"].items():
        assert torch.equal(value, cut[1]["network"][key]), key


def test_error_on_the_first_process_reaches_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    def refused(rank: int) -> None:
        with pytest.raises(ValueError, match="cannot be made"):
            train(config(), DATA, out=tmp_path / "file" / "run")
        with join("cpu") as team, pytest.raises(ValueError, match="only here"):
            team.first(_fail)

    in_two_processes(tmp_path, refused)


def test_replicas_are_not_the_last_to_hold_the_process_group(tmp_path: Path) -> None:
    """Where they were, a training that was over did not end, now and then."""

    def parted(rank: int) -> None:
        with join("cpu") as team:
            replicas = team.wrap(torch.nn.Linear(2, 2), "ddp")
            replicas(torch.ones(1, 2)).sum().backward()
            reducer = weakref.ref(replicas.reducer)
            team.part()
            assert reducer() is None

    in_two_processes(tmp_path, parted)


def _fail() -> None:
    raise ValueError("only here")


SCRIPT = """
    import os, signal, sys
    import torch
    torch.set_num_threads(1)
    sys.path.insert(0, {tests!r})
    from test_distributed import DATA, config
    from flatmin.train import train

    class Dying(torch.optim.SGD):
        steps = 0
        def step(self, closure=None):
            Dying.steps += 1
            first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
            if first and os.environ["RANK"] == "1" and Dying.steps == 11:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().step(closure)

    torch.optim.SGD = Dying
    train(config(minimizer="sam"), DATA, out={out!r}, resume=True, save_every=5)
"""


@pytest.mark.slow
def test_killed_process_is_restarted_by_torchrun_and_goes_on(tmp_path: Path) -> None:
    script, out = tmp_path / "script.py", tmp_path / "run"
    tests = str(Path(__file__).parent)
    script.write_text(textwrap.dedent(SCRIPT).format(tests=tests, out=str(out)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "--max-restarts=1", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    log = (out / "log.jsonl").read_text()
    assert '"event": "resume", "step": 10' in log
    found = newest_checkpoint(out)
    assert found is not None
    alone = train(config(minimizer="sam"), DATA)
    for key, value in alone.model.state_dict().items():
        assert (value - found[1]["network"][key]).abs().max() <= 1e-10
    assert load_checkpoint(found[0])["place"]["step"] == 20
