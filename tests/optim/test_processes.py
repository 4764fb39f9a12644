"""Two processes train as one: replicated (DDP) and sharded (FSDP2), by gloo on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
import two_processes

pytestmark = [
    pytest.mark.slow,  # two processes that import torch
    pytest.mark.distributed,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"
BOUND = 1e-10  # 30 steps in float64


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes found; they are started once."""
    folder = tmp_path_factory.mktemp("processes")
    mp.start_processes(
        two_processes.work,
        args=(str(folder), [str(EXAMPLES)]),
        nprocs=two_processes.WORLD,
        start_method="spawn",
    )
    return [
        torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(two_processes.WORLD)
    ]


@pytest.fixture
def found(request: pytest.FixtureRequest, results: list[dict[str, Any]]) -> list[Any]:
    """The result of the check of that name, from both processes."""
    name = request.function.__name__.removeprefix("test_")
    values = []
    for result in results:
        if name not in result:
            pytest.fail(f"a process did not get as far as {name}")
        if isinstance(result[name], RuntimeError):
            pytest.fail(str(result[name]))
        values.append(result[name])
    return values


def test_ddp_synced(found: list[Any]) -> None:
    for gaps in found:
        assert len(gaps) == len(two_processes.ALL) + 1
        assert max(gaps.values()) <= BOUND


def test_ddp_local(found: list[Any]) -> None:
    """Replicas stay bit-equal, since weights are copied back and not computed back."""
    assert {"SAM", "ASAM", "FriendlySAM", "MSAM", "AsyncSAM"} == found[0].keys()
    for variant in found[0]:
        assert torch.equal(found[0][variant], found[1][variant])


def test_ddp_halves(found: list[Any]) -> None:
    """Two gradients that are not of the same processes are refused, not mixed."""
    for said in found:
        for variant in two_processes.MIXING:
            assert "make the first pass without no_sync()" in said[variant]
            assert float(said[f"{variant} after"]) <= BOUND


def test_ddp_local_by_hand(found: list[Any]) -> None:
    assert max(found) <= 1e-12


@pytest.mark.parametrize("check", ["ddp_local_event", "ddp_local_event_without_model"])
def test_an_event_on_one_replica(results: list[dict[str, Any]], check: str) -> None:
    (one, told), (other, other_told) = (result[check] for result in results)
    assert torch.equal(one, other)
    assert one.isfinite().all()
    assert told == other_told == 1


def test_ddp_scaler_event(found: list[Any]) -> None:
    (one, scale), (other, other_scale) = found
    assert torch.equal(one, other)
    assert scale == other_scale == 4.0


def test_groups_of_processes(found: list[Any]) -> None:
    for gaps in found:
        assert max(gaps.values()) <= BOUND


def test_ddp_statistics(found: list[Any]) -> None:
    assert found == [True, True]


def test_fsdp_equals_one_process(found: list[Any]) -> None:
    for gaps in found:
        assert len(gaps) == len(two_processes.WITH_ORDERS)
        assert max(gaps.values()) <= BOUND


def test_fsdp_mixed_precision(found: list[Any]) -> None:
    """Against one process that casts where the policy does."""
    assert max(found) <= BOUND


def test_fsdp_restores(found: list[Any]) -> None:
    assert all(all(one.values()) for one in found)


def test_fsdp_event(found: list[Any]) -> None:
    for steps in found:
        assert steps == [(0.0, 1), (0.0, 1)]


def test_fsdp_closure(found: list[Any]) -> None:
    for one in found:
        assert one["gap"] <= BOUND
        assert "added to gradients that were there before" in one["refused"]


def test_fsdp1(found: list[Any]) -> None:
    """Refused by name, with the remedy."""
    for said in found:
        assert len(said) == 2 * len(two_processes.ALL)
        assert all("FSDP1" in why and "fully_shard" in why for why in said.values())


def test_sequence_parallel(found: list[Any]) -> None:
    for gaps in found:
        assert len(gaps) == len(two_processes.WITH_ORDERS)
        assert max(gaps.values()) <= BOUND


def test_whole_tensors(found: list[Any]) -> None:
    assert all("Filterwise has to see whole tensors" in why for why in found)


def test_examples(found: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both end where one process ends with the whole batches."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import plain

    expected = torch.nn.utils.parameters_to_vector(plain.train().parameters()).detach()
    for one in found:
        for end in one.values():
            torch.testing.assert_close(end, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_under_torchrun(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = str(EXAMPLES / f"{name}.py")
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", script],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("loss") == 1  # process 0 alone reports
