"""Progress without a terminal: lines, not too many, and of everything that is open."""

from __future__ import annotations

import pytest

from flatmin import _told
from flatmin._told import Told
from flatmin.record.progress import meter, progress


class Clock:
    """Seconds that pass when told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(_told.time, "monotonic", found)
    monkeypatch.setattr(_told, "_begun", [])
    return found


def test_what_is_short_is_silent(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress(range(100), "quick"):
        clock.now += 0.2
    assert capsys.readouterr().err == ""


def test_a_line_each_half_minute_tells_all_that_is_open(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in progress(range(3), "runs"):
        for _ in progress(range(4), "epochs"):
            clock.now += 20.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "flatmin: runs 0 of 3, epochs 2 of 4; 40 s gone"
    assert lines[2] == "flatmin: runs 1 of 3, epochs 2 of 4; 2 min gone, about 4 min left"
    assert len(lines) == 6
    assert _told._open() == []


def test_what_was_done_before_does_not_count_for_the_time_left(clock: Clock) -> None:
    told = Told(100, "examples", 80)
    told.update(10)
    assert _told.line(60.0) == "examples 90 of 100; 60 s gone, about 60 s left"


def test_an_interrupted_loop_is_closed(clock: Clock) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        for _ in progress([1, 2], "loop"):
            raise RuntimeError("stop")
    assert _told._open() == []


def test_a_meter_that_is_given_up_is_forgotten(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    add = meter(10.0, "costs")
    clock.now += 45.0
    add(5.0)
    assert capsys.readouterr().err == "flatmin: costs 5 of 10; 45 s gone, about 45 s left\n"
    del add
    assert _told._open() == []
