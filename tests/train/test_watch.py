"""A watch sees the network and changes nothing: not a bit of the run, nor of its continuation."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import DATA, config, same_weights, small
from torch import nn

from flatmin.train import read_log, train


def drawing(network: nn.Module) -> dict[str, float | None]:
    """Draw from every source, as a careless measure may."""
    torch.rand(3), random.random(), np.random.rand(2)  # noqa: NPY002
    return {"norm": float(sum(p.detach().norm() for p in network.parameters())), "nothing": None}


def watched(out: Path) -> list[dict[str, Any]]:
    return [row for row in read_log(out / "log.jsonl") if row["event"] == "watch"]


@pytest.mark.parametrize("minimizer", ["none", "asam"])
def test_a_run_is_the_same_to_the_bit_with_a_watch(minimizer: str, tmp_path: Path) -> None:
    chosen = config(minimizer=minimizer)
    plain, seen = small(), small()
    train(chosen, DATA, model=plain)
    train(chosen, DATA, model=seen, watch=drawing, watch_every=5, out=tmp_path)
    assert same_weights(plain, seen)
    rows = watched(tmp_path)
    assert [row["step"] for row in rows] == [5, 10]
    assert rows[0]["norm"] > 0 and rows[0]["nothing"] is None


def test_a_run_that_is_resumed_has_seen_the_same(tmp_path: Path) -> None:
    whole, parts = small(), small()
    train(config(), DATA, model=whole, watch=drawing, watch_every=2, out=tmp_path / "whole")
    calls = 0

    def stopping(network: nn.Module) -> dict[str, float | None]:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return drawing(network)

    words: dict[str, Any] = {"out": tmp_path / "parts", "watch_every": 2, "save_every": 3}
    with pytest.raises(KeyboardInterrupt):
        train(config(), DATA, model=parts, watch=stopping, **words)
    again = small()
    train(config(), DATA, model=again, watch=drawing, resume=True, **words)
    assert same_weights(whole, again)
    assert watched(tmp_path / "parts") == watched(tmp_path / "whole")
    assert len(watched(tmp_path / "whole")) == 6


def test_the_network_is_shown_after_the_step(tmp_path: Path) -> None:
    seen: list[nn.Module] = []
    model = small()
    train(config(epochs=1), DATA, model=model, watch=lambda m: seen.append(m) or {}, watch_every=6)
    assert seen == [model]


BAD: dict[str, dict[str, Any]] = {
    "watch and watch_every go together": {"watch": drawing},
    "go together; give both": {"watch_every": 3},
    "watch_every must be at least 1, got 0": {"watch": drawing, "watch_every": 0},
    "no process has with fsdp": {"watch": drawing, "watch_every": 1, "parallel": "fsdp"},
    "call it otherwise": {"watch": lambda network: {"step": 1.0}, "watch_every": 1},
}


@pytest.mark.parametrize("sentence", BAD)
def test_what_cannot_be_watched_is_refused(sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        train(config(epochs=1), DATA, model=small(), **BAD[sentence])


def test_tensorboard_has_what_was_seen(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(
        config(epochs=1), DATA, model=small(), watch=drawing, watch_every=3, out=tmp_path,
        tensorboard=True,
    )  # fmt: skip
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = events.Scalars("watch/norm")
    assert [scalar.step for scalar in scalars] == [3, 6]
    assert "watch/nothing" not in events.Tags()["scalars"]
    assert scalars[0].value == pytest.approx(watched(tmp_path)[0]["norm"])
