"""A run that was stopped and continued ends with the same bits as one that was not."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import DATA, KINDS, config, image_set, same_weights, small

from flatmin.train import (
    CheckpointError,
    Interrupted,
    TrainConfig,
    Trained,
    checkpoints,
    load_checkpoint,
    newest_checkpoint,
    read_log,
    save_checkpoint,
    state,
    train,
)
from slowly import slow_but


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal inside a step."""
    real = state.State.advance
    sent = []

    def advance(self: state.State, batches: Any) -> int | None:
        if self.step == step - 1 and not sent:
            sent.append(step)
            os.kill(os.getpid(), number)
        return real(self, batches)

    monkeypatch.setattr(state.State, "advance", advance)


def without_times(run: Trained) -> list[dict[str, Any]]:
    """A history apart from the seconds."""
    return [dataclasses.asdict(dataclasses.replace(epoch, seconds=0)) for epoch in run.history]


CHANGES: list[dict[str, Any]] = [
    {},
    {"options": {"momentum": 0.9, "nesterov": True}, "minimizer": "sam", "warmup": 0.5},
    {"optimizer": "adam", "minimizer": "asam", "validation": 10},
    {"optimizer": "adamw", "precision": "bf16", "minimizer": "sam"},
    {"precision": "fp16", "minimizer": "asam"},
    {"options": {"momentum": 0.9}, "minimizer": "msam", "when": "last-0.7"},
    {"optimizer": "adam", "minimizer": "asyncsam", "perturb": "norms", "accumulation": 2},
    {"optimizer": "adam", "minimizer": "sam", "when": "large"},
    {"precision": "fp64", "accumulation": 3, "channels_last": True},
    {"optimizer": "rmsprop", "schedule": "cosine-by-epoch", "drop_last": True},
]
# Within an epoch, at its end, at the next beginning.
PLACES = [("images", 4), ("images", 6), ("images", 7)]
PLACES += [(kind, 4) for kind in KINDS if kind != "images"]


@pytest.mark.parametrize(
    "changes",
    slow_but(CHANGES, CHANGES[1], CHANGES[4]),
    ids=lambda changes: "-".join(str(value) for value in changes.values()) or "sgd",
)
@pytest.mark.parametrize(
    ("kind", "step"), slow_but(PLACES, ("images", 6), ("table", 4), ("tokens", 4))
)
def test_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], step: int, kind: str
) -> None:
    data, goal, network = KINDS[kind].data, KINDS[kind].goal, KINDS[kind].network
    whole = train(config(**changes), data, model=network(), **goal)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stop_after(patch, step)
        train(config(**changes), data, model=network(), out=tmp_path, **goal)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[1]["place"]["step"] == step
    rest = train(config(**changes), data, model=network(), out=tmp_path, resume=True, **goal)
    assert same_weights(whole.model, rest.model)
    assert without_times(whole) == without_times(rest)
    lines = [line["epoch"] for line in read_log(tmp_path / "log.jsonl") if line["event"] == "epoch"]
    assert lines == [1, 2]


def test_finished_run_comes_back_without_training(tmp_path: Path) -> None:
    first = train(config(), DATA, model=small(), out=tmp_path, resume=True)
    files = sorted(os.listdir(tmp_path))
    again = train(config(), DATA, model=small(), out=tmp_path, resume=True)
    assert same_weights(first.model, again.model)
    assert first.history == again.history
    assert first.checkpoint == again.checkpoint
    assert sorted(os.listdir(tmp_path)) == files


def test_damaged_newest_checkpoint_costs_an_epoch_and_no_bit(tmp_path: Path) -> None:
    whole = train(config(), DATA, model=small(), out=tmp_path)
    newest = checkpoints(tmp_path)[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(RuntimeWarning, match=newest.name):
        rest = train(config(), DATA, model=small(), out=tmp_path, resume=True)
    assert same_weights(whole.model, rest.model)
    lines = [line["epoch"] for line in read_log(tmp_path / "log.jsonl") if line["event"] == "epoch"]
    assert lines == [1, 2]


def refused(
    tmp_path: Path, words: str, *, data: Any = DATA, network: Any = None, **changes: Any
) -> None:
    """Try to continue a run as another one; nothing may change in its folder."""
    train(config(epochs=1), DATA, model=small(), out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=words) as caught:
        arguments = {} if changes.get("model") else {"model": network or small()}
        train(config(**{"epochs": 1, **changes}), data, out=tmp_path, resume=True, **arguments)
    assert "another folder" in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "lr was 0.05 and is 0.1", lr=0.1)


def test_another_model_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "model was 'own' and is 'wrn-10-1'", model="wrn-10-1")


def test_other_parameters_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "other parameters", network=torch.nn.Sequential(small()))


def test_other_classes_are_refused(tmp_path: Path) -> None:
    four = dataclasses.replace(DATA[0], classes=("a", "b", "c", "d"))
    data = (four, image_set(20, 1, classes=4))
    refused(tmp_path, "3 classes .* the data have 4", data=data, network=small(4))


def test_other_images_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "other data", data=(DATA[0].subset(torch.arange(60).flip(0)), DATA[1]))


def test_other_crops_are_refused(tmp_path: Path) -> None:
    data = (dataclasses.replace(DATA[0], augment=None), DATA[1])
    refused(tmp_path, "crop_padding was 1 and is 0, flip was True and is False", data=data)


def test_a_checkpoint_of_an_older_configuration_goes_on(tmp_path: Path) -> None:
    whole = train(config(), DATA, model=small())
    saved = train(config(), DATA, model=small(), out=tmp_path / "whole").checkpoint
    assert saved is not None
    half = checkpoints(tmp_path / "whole")[1]
    state_then = load_checkpoint(half)
    own = state_then["fingerprint"]
    own["config"] |= own.pop("settings")
    for later in ("when", "perturb"):
        del own["config"][later]
    del own["loss"], own["metric"]
    (tmp_path / "then").mkdir()
    save_checkpoint(tmp_path / "then", 6, state_then)
    with pytest.warns(RuntimeWarning, match="is not what the run wrote"):
        rest = train(config(), DATA, model=small(), out=tmp_path / "then", resume=True)
    assert same_weights(whole.model, rest.model)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(config(epochs=1), DATA, model=small(), out=tmp_path)
    monkeypatch.setattr("flatmin.train.fingerprint.FORMAT", 3)
    with pytest.raises(ValueError, match=r"format 2.*reads 3"):
        train(config(epochs=1), DATA, model=small(), out=tmp_path, resume=True)


def test_a_used_folder_is_not_overwritten(tmp_path: Path) -> None:
    train(config(epochs=1), DATA, model=small(), out=tmp_path)
    with pytest.raises(ValueError, match="resume it"):
        train(config(epochs=1), DATA, model=small(), out=tmp_path)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be made"):
        train(config(), DATA, model=small(), out=tmp_path / "file" / "run")


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    class Nested(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            with pytest.raises(ValueError, match="Another process is training"):
                train(config(), DATA, model=small(), out=tmp_path, resume=True)
            return self.inner(images)

    train(config(epochs=1, batch_size=60), DATA, model=Nested(), out=tmp_path)


LONG: dict[str, Any] = {"epochs": 6, "minimizer": "asam", "optimizer": "adam", "lr": 0.01}


def fork(action: Callable[[], object]) -> int:
    """Start a copy of this warm process; it ends without the tests' own farewell."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return child


def continue_run(folder: Path, kind: str = "images") -> Trained:
    """What a user does after each crash; a save every third step."""
    return trained(kind, config(**LONG), out=folder, resume=True, save_every=3)


def trained(kind: str, chosen: TrainConfig, **where: Any) -> Trained:
    """A run on images, a table, numbers or tokens."""
    own = KINDS[kind]
    return train(chosen, own.data, model=own.network(), **own.goal, **where)


def newest_step(folder: Path) -> int:
    """Steps in the newest checkpoint; any unsound one would warn, and a warning is an error."""
    found = newest_checkpoint(folder)
    return found[1]["place"]["step"] if found else 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(kind: str, tmp_path: Path) -> None:
    """Kill −9 at random moments, then resume: the same bits, nothing lost."""
    least = 20 if kind == "images" else 10
    whole = trained(kind, config(**LONG))
    begin = time.perf_counter()
    child = fork(lambda: continue_run(tmp_path / "measured", kind))
    os.waitpid(child, 0)
    duration = time.perf_counter() - begin
    chance = random.Random(0)
    kills = rounds = 0
    moments = set()
    while kills < least or rounds < 2:
        folder = tmp_path / f"round-{rounds}"
        before = newest_step(folder)
        child = fork(lambda folder=folder: continue_run(folder, kind))
        time.sleep(chance.uniform(0, 0.3 * duration))
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL)
        assert newest_step(folder) >= before
        if code:
            kills += 1
            moments.add(newest_step(folder))
            continue
        assert same_weights(continue_run(folder, kind).model, whole.model)
        rounds += 1
    assert len(moments) >= 5  # they did fall all over the run


@pytest.mark.parametrize("kind", slow_but(KINDS, "images"))
@pytest.mark.parametrize("place", ["flatmin.optim.sam.SAM.perturbed", "torch.optim.Adam.step"])
def test_killed_inside_a_step(kind: str, tmp_path: Path, place: str) -> None:
    """Between the two gradients, and after the weights have changed."""
    chosen = config(optimizer="adam", minimizer="sam")
    whole = trained(kind, chosen)
    calls = []

    def killing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(1)
            result = real(*arguments, **options)
            if len(calls) == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    owner, _, name = place.rpartition(".")
    module, _, holder = owner.rpartition(".")
    target = getattr(__import__(module, fromlist=[holder]), holder)

    def run() -> None:
        setattr(target, name, killing(getattr(target, name)))
        trained(kind, chosen, out=tmp_path, save_every=2)

    assert os.waitstatus_to_exitcode(os.waitpid(fork(run), 0)[1]) == -signal.SIGKILL
    assert newest_step(tmp_path) == 4
    rest = trained(kind, chosen, out=tmp_path, save_every=2, resume=True)
    assert same_weights(whole.model, rest.model)


def test_full_disk_stops_with_the_old_checkpoint_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config(), DATA, model=small())
    real = os.fsync
    calls = []

    def full(descriptor: int) -> None:
        calls.append(1)
        if len(calls) == 5:  # log, file, folder; log, file
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch, pytest.raises(CheckpointError, match="No space left"):
        patch.setattr(os, "fsync", full)
        train(config(), DATA, model=small(), out=tmp_path)
    assert newest_step(tmp_path) == 6
    rest = train(config(), DATA, model=small(), out=tmp_path, resume=True)
    assert same_weights(whole.model, rest.model)


def test_configuration_without_own_network(tmp_path: Path) -> None:
    chosen = TrainConfig(model="wrn-10-1", epochs=1, batch_size=30, minimizer="sam")
    first = train(chosen, DATA, out=tmp_path)
    assert same_weights(first.model, train(chosen, DATA, out=tmp_path, resume=True).model)
