"""``flatmin compare`` answers first; what ``--jobs`` prints can be run in any order, and twice."""

from __future__ import annotations

import json
import random
import shlex
import sys
from pathlib import Path

import pytest

from flatmin import cli
from flatmin.cli.compare import _seconds

sys.path.insert(0, str(Path(__file__).parents[1] / "compare"))
from small_tasks import DRAWN, TABLE, written

LEAST = ["--epochs", "1", "--seeds", "2", "--arms", "sam", "--workers", "1"]


def record(folder: Path) -> dict[str, object]:
    """What was found, but for clocks and places."""
    found = json.loads((folder / "compare.json").read_text())
    return {key: value for key, value in found.items() if key not in ("seconds", "provenance")}


def test_the_answer_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = written(tmp_path, DRAWN), tmp_path / "out"
    words = ["compare", str(path), *LEAST, "--trials", "4", "--worth", "2.5", "--out", str(out)]
    assert cli.main(words) == 0
    first, _, header, *rest = capsys.readouterr().out.splitlines()
    assert first == record(out)["answer"] and first.startswith("sam ")
    assert header.startswith("arm  at equal") and rest[-1] == str(out / "compare.html")
    assert json.loads((out / "compare.json").read_text())["config"]["worth"] == 2.5


def test_another_comparison_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = written(tmp_path, DRAWN), tmp_path / "out"
    words = ["compare", str(path), *LEAST, "--trials", "1", "--out", str(out)]
    assert cli.main(words) == 0
    first = (out / "compare.json").read_bytes()
    assert cli.main([*words, "--seeds", "3"]) == 0  # the same, with one more
    assert not capsys.readouterr().err and not list(out.glob("compare-*"))
    more = (out / "compare.json").read_bytes()
    assert more != first
    assert cli.main([*words, "--epochs", "2"]) == 0
    said = capsys.readouterr().err
    assert said == (
        f"flatmin: {out / 'compare.json'} held another task or setting and is now "
        f"{out / 'compare-1.json'}.\n"
    )
    assert (out / "compare-1.json").read_bytes() == more
    assert "compare-1.png" in (out / "compare-1.html").read_text()
    written(tmp_path, DRAWN, ("1.0 + noise", "2.0 + noise"))  # another task of the same name
    assert cli.main([*words, "--epochs", "2"]) == 0
    assert (out / "compare-2.json").exists() and (out / "compare-2.png").exists()


# Its network asks the process to end, once, in the middle of a run.
ENDING = """

class Ending(nn.Tanh):
    calls = 0

    def forward(self, x):
        import os, signal
        Ending.calls += 1
        if Ending.calls == 30:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(x)
"""


def test_sigterm_saves_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With one worker it is we who are asked, and no worker that is lost and replaced."""
    path = written(tmp_path, TABLE + ENDING, ("nn.Tanh()", "Ending()"))
    words = ["compare", str(path), *LEAST, "--trials", "1"]
    words[words.index("--epochs") + 1] = "6"
    out = tmp_path / "out"
    assert cli.main([*words, "--out", str(out)]) == 143
    assert "the same command goes on" in capsys.readouterr().err
    assert list(out.glob("runs/*/step-*.pt")) and not (out / "compare.json").exists()
    assert cli.main([*words, "--out", str(out)]) == 0


@pytest.mark.slow
def test_jobs_in_any_order_and_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, TABLE)
    plain, out = tmp_path / "plain", tmp_path / "a folder"
    words = ["compare", str(path), *LEAST, "--trials", "4", "--out"]
    assert cli.main([*words, str(plain)]) == 0
    order, rounds = random.Random(0), []
    capsys.readouterr()
    while True:
        assert cli.main([*words, str(out), "--jobs"]) == 0
        lines = capsys.readouterr().out.splitlines()
        if not lines:
            break
        rounds.append(len(lines))
        for line in order.sample(lines * 2, 2 * len(lines)):
            program, *rest = shlex.split(line)
            assert program == "flatmin"
            assert cli.main(rest) == 0
    assert rounds == [2 * 4, 2 * 2, 2 * 2]  # search, once more, seeds
    assert cli.main([*words, str(out)]) == 0
    assert record(out) == record(plain)


def test_times_as_they_are_typed() -> None:
    assert [_seconds(text) for text in ("90s", "30m", "1.5h", "1d")] == [90, 1800, 5400, 86400]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["no_such_file.py", *LEAST], "no_such_file.py cannot be read"),
        (["task.py", "--arms", "sam"], "give either epochs or a budget of time"),
        (["task.py", "--budget", "soon"], "must be a time such as 90s"),
        (["task.py", *LEAST, "--trials", "7"], "trials must be 1"),
        (["task.py", "--run", "0123"], "knows no run '0123'"),
        (["task.py", "--run", "../x"], "knows no run '../x'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, TABLE)
    try:
        code = cli.main(["compare", *words])
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]
    printed = capsys.readouterr()
    assert code == 2 and not printed.out
    assert sentence in printed.err and printed.err.count("\n") == 1
