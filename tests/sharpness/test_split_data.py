"""Two processes that share the data measure what one process with all of it does."""

from __future__ import annotations

from typing import Any

import pytest
import split_data
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F

from flatmin import EmpiricalLoss

pytestmark = [
    pytest.mark.slow,  # two processes that import torch
    pytest.mark.distributed,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process found; they are started once."""
    folder = tmp_path_factory.mktemp("processes")
    mp.start_processes(
        split_data.work, args=(str(folder),), nprocs=split_data.WORLD, start_method="spawn"
    )
    found = [
        torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(split_data.WORLD)
    ]
    for result in found:
        if isinstance(result, Exception):
            raise result
    return found


@pytest.mark.parametrize("shares", ["unequal", "all and none"])
def test_two_processes_equal_one(results: list[dict[str, Any]], shares: str) -> None:
    alone = split_data.measured(
        EmpiricalLoss(split_data.network(), F.cross_entropy, split_data.batches())
    )
    for result in results:
        assert result[shares] == pytest.approx(alone, rel=1e-10, abs=0)
    assert results[0][shares] == results[1][shares]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("other seeds", "ask for the loss at different points"),
        ("shrinking", "data changed between passes: 21 examples, then 20"),
        ("dropout", "must be the same each time"),
        ("mode", "one function with and without gradients"),
        ("weighted", "a mean over examples, whatever the batch"),
        ("nothing", "at least one example"),
        ("wrapped", "pass model.module"),
        ("flat shards", "got one with FullyShardedDataParallel"),
        ("sharded tensors", "got one with DTensor"),
    ],
)
def test_both_processes_are_told(results: list[dict[str, Any]], event: str, message: str) -> None:
    """Also where only one of them did it, for else the other would wait for ever."""
    for result in results:
        assert message in result[event]
