"""Signals, losses that are not finite and a lack of memory end a run in one sentence."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import DATA, config, same_weights, small

from flatmin.train import (
    Diverged,
    Interrupted,
    OutOfMemory,
    newest_checkpoint,
    read_log,
    train,
)


class Acting(torch.nn.Module):
    """Does something in a training pass of a given number."""

    def __init__(self, number: int, action: Any) -> None:
        super().__init__()
        self.inner, self.number, self.action = small(), number, action
        # No state of the network, which the second pass of SAM would put back.
        self.passes = itertools.count(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and next(self.passes) == self.number:
            self.action(self)
        return self.inner(images)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_signal_lets_the_step_end_and_saves(tmp_path: Path, number: int, code: int) -> None:
    whole = train(config(minimizer="sam"), DATA, model=Acting(0, None))
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    acting = Acting(7, lambda model: os.kill(os.getpid(), number))  # first pass of step 4
    with pytest.raises(Interrupted, match="after step 4") as caught:
        train(config(minimizer="sam"), DATA, model=acting, out=tmp_path)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert str(found[0]) in str(caught.value)
    assert (caught.value.code, found[1]["place"]["step"]) == (code, 4)
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    rest = train(config(minimizer="sam"), DATA, model=Acting(0, None), out=tmp_path, resume=True)
    assert same_weights(whole.model, rest.model)


def test_interruption_is_a_keyboard_interrupt_and_no_exception() -> None:
    """So that ``except Exception`` around an experiment does not swallow it."""
    acting = Acting(1, lambda model: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match="no folder was named"):
        train(config(), DATA, model=acting)
    assert not issubclass(Interrupted, Exception)


def test_second_signal_does_not_wait(tmp_path: Path) -> None:
    def twice(model: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(config(), DATA, model=Acting(2, twice), out=tmp_path)
    assert not isinstance(caught.value, Interrupted)


def test_training_in_a_thread_leaves_signals_alone() -> None:
    ends: list[Any] = []
    thread = threading.Thread(
        target=lambda: ends.append(train(config(epochs=1), DATA, model=small()))
    )
    thread.start()
    thread.join()
    assert ends[0].history[0].step == 6


def poison(model: Any) -> None:
    """Make the network's outputs infinite from now on."""
    with torch.no_grad():
        model.inner.layers[-1].bias.fill_(float("nan"))


@pytest.mark.parametrize("save_every", [None, 1, 2])
def test_loss_that_is_not_finite_stops_with_the_last_sound_checkpoint(
    tmp_path: Path, save_every: int | None
) -> None:
    with pytest.raises(Diverged, match="not finite") as caught:
        train(
            config(),
            DATA,
            model=Acting(10, poison),
            out=tmp_path,
            save_every=save_every,
            log_every=100,
        )
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[1]["place"]["step"] == {None: 6, 1: 9, 2: 8}[save_every]
    assert all(value.isfinite().all() for value in found[1]["network"].values())
    assert str(found[0]) in str(caught.value)
    assert "lr" in str(caught.value)
    assert list(read_log(tmp_path / "log.jsonl"))[-1] == {
        "event": "stop",
        "reason": str(caught.value),
    }


@pytest.mark.parametrize("saving", [True, False])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, saving: bool) -> None:
    """The loss of the last step was finite; the weights after it are not."""
    broken = torch.nn.Parameter(torch.ones(1))

    class Overflowing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.unused = small(), broken

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                self.unused.fill_(float("inf"))
            return self.inner(images)

    with pytest.raises(Diverged, match=r"weights \(unused\).*(none|nothing) was saved"):
        train(config(), DATA, model=Overflowing(), out=tmp_path if saving else None)
    assert newest_checkpoint(tmp_path) is None


def starve(model: Any) -> None:
    """Ask for a petabyte."""
    torch.empty(1 << 50, dtype=torch.uint8)


def starve_accelerator(model: Any) -> None:
    """What CUDA raises."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB …\nmany lines")


@pytest.mark.parametrize("action", [starve, starve_accelerator])
def test_lack_of_memory_is_one_sentence_with_the_remedy(tmp_path: Path, action: Any) -> None:
    with pytest.raises(OutOfMemory, match="raise accumulation") as caught:
        train(config(), DATA, model=Acting(8, action), out=tmp_path)
    assert "\n" not in str(caught.value)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[0].name in str(caught.value)


def test_error_of_the_network_itself_comes_through(tmp_path: Path) -> None:
    def fail(model: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1") as caught:
        train(config(), DATA, model=Acting(2, fail), out=tmp_path)
    assert type(caught.value) is RuntimeError
