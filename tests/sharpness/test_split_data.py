"""Two processes that share the data measure what one process with all of it does."""

from __future__ import annotations

from typing import Any

import pytest
import split_data
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F

from flatmin import EmpiricalLoss
from flatmin.sharpness import hessian_trace

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


def test_sharded_weights_equal_whole_ones(results: list[dict[str, Any]]) -> None:
    """Also where a step of the differences is made in whole tensors and evaluated in shards."""
    whole = EmpiricalLoss(
        torch.nn.Sequential(split_data.network()),
        F.cross_entropy,
        [split_data.batches()[i] for i in (0, 1, 3, 4)],
    )
    alone = split_data.bent(whole)
    exact = hessian_trace(whole, whole.params, samples=5).value
    for result in results:
        # Differences of gradients that are summed in another order.
        assert result["weights"]["bent"] == pytest.approx(alone, rel=1e-6, abs=0)
        assert result["weights"]["bent"]["trace"] == pytest.approx(exact, rel=1e-6)
        for name in ("loss", "gradient", "one step"):
            assert result["weights"]["bent"][name] == pytest.approx(alone[name], rel=1e-12)
        assert result["weights"]["kept"]
    assert results[0]["weights"]["bent"] == results[1]["weights"]["bent"]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("products", "FiniteDifferences(loss) takes differences of gradients"),
        ("uneven", "every process needs as many batches as the others"),
        ("points", "ask for the loss at different points"),
        ("random", "the loss must be the same each time"),
        ("summed", "must be a mean over examples"),
        ("whole", "takes a network sharded by FSDP2, got Sequential"),
        ("part", "takes a network sharded by FSDP2, got Sequential"),
        ("held", "call model.set_requires_gradient_sync(True)"),
    ],
)
def test_what_sharded_weights_refuse(
    results: list[dict[str, Any]], event: str, message: str
) -> None:
    for result in results:
        assert message in result["weights"][event]
