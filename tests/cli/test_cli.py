"""The command line: what it does, and how it answers bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import flatmin
from flatmin import cli
from flatmin.cli import main


@pytest.fixture(autouse=True)
def _in_an_empty_folder(two_items: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


def record(name: str = "fig90", out: str = "results") -> Any:
    return json.loads(Path(out, f"{name}.json").read_text())


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown for verb in cli.VERBS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"flatmin {flatmin.__version__}\n"
    with pytest.raises(SystemExit, match="0"):
        main(["run", "--help"])


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["fig90   A made-up item", "        Two and two is four."]


def test_list_wraps_and_keeps_long_names_apart(
    add_item: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    add_item("ext_long_name", '"""Title.\n\nClaim: ' + "many words " * 20 + '\n"""\n')
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "fig90         A made-up item"
    assert "ext_long_name Title" in lines
    assert max(map(len, lines)) <= 60 and len(lines) > 8


def test_run_some(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "table91", "fig90", "table91", "--quick", "--seeds", "2"]) == 0
    shown = capsys.readouterr()
    assert [line.partition(":")[0] for line in shown.out.splitlines()] == ["table91", "fig90"]
    assert "seeds is no option of table91." in shown.err
    assert main(["run", "fig90", "fig9"]) == 2
    assert "there is no item 'fig9'" in capsys.readouterr().err


def test_help_names_what_may_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    assert "label_smoothing" in shown and "accumulation" in shown


def test_run_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["run", "fig90", "--quick", "--seeds", "2", "--set", "sizes=3,4", "exact=true"]) == 0
    )
    assert capsys.readouterr().out.startswith(
        "fig90: of 3 claims 1 hold, 1 do not, and 1 cannot be judged (0 s), "
    )
    config = record()["config"]
    assert (config["seeds"], config["sizes"], config["exact"]) == (2, [3, 4], True)
    assert sorted(path.name for path in Path("results").iterdir()) == [
        "fig90.json", "fig90.md", "fig90.png", "fig90.svg",
    ]  # fmt: skip


def test_a_finished_item_is_kept_unless_forced(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "fig90"]) == 0
    first = Path("results/fig90.json").stat().st_ino
    assert main(["run", "fig90"]) == 0
    assert "kept from before, FULL" in capsys.readouterr().out
    assert Path("results/fig90.json").stat().st_ino == first
    assert main(["run", "fig90", "--force"]) == 0
    assert Path("results/fig90.json").stat().st_ino != first
    assert main(["run", "fig90", "--seeds", "2"]) == 0  # another configuration is another result
    assert record()["config"]["seeds"] == 2


def test_a_lost_page_is_drawn_again_without_computing() -> None:
    main(["run", "fig90"])
    Path("results/fig90.png").unlink()
    first = Path("results/fig90.json").stat().st_ino
    main(["run", "fig90"])
    assert Path("results/fig90.png").exists()
    assert Path("results/fig90.json").stat().st_ino == first


def test_quick_never_replaces_full(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "fig90"])
    assert main(["run", "fig90", "--quick"]) == 0
    assert "QUICK replaces it only with --force" in capsys.readouterr().out
    assert record()["mode"] == "FULL"
    main(["run", "fig90", "--quick", "--force"])
    assert record()["mode"] == "QUICK"
    main(["run", "fig90"])  # and FULL replaces QUICK
    assert record()["mode"] == "FULL"


def test_a_result_of_another_version_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    main(["run", "fig90"])
    monkeypatch.setattr(flatmin, "__version__", "9.9")
    main(["run", "fig90"])
    assert record()["provenance"]["flatmin"] == "9.9"


def test_a_damaged_record_is_computed_again() -> None:
    main(["run", "fig90"])
    Path("results/fig90.json").write_text("{")
    assert main(["run", "fig90"]) == 0
    assert record()["numbers"]["sum"] == 4


def test_run_all_passes_options_to_those_that_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "all", "--quick", "--seeds", "2", "--set", "size=2"]) == 0
    errors = capsys.readouterr().err
    assert "seeds is no option of table91." in errors
    assert "size is no option of fig90." in errors
    assert record()["config"]["seeds"] == 2
    assert record("table91")["config"] == {"size": 2.0}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["rum"], "flatmin: there is no verb 'rum'; the verbs are list, run, report"),
        (["run"], "flatmin run: the following arguments are required: item; see"),
        (["run", "fig9"], "flatmin: there is no item 'fig9'; the items are fig90, "),
        (["run", "fig90", "--set", "seed=1"], "flatmin: fig90: there is no option 'seed'; valid "),
        (["run", "fig90", "--set", "seed"], "flatmin: --set takes name=value, got 'seed'."),
        (["run", "fig90", "--seeds", "two"], "flatmin: fig90: seeds must be an integer, got 't"),
        (["run", "fig90", "--seeds", "-2"], "flatmin: fig90: seeds must be at least 1, got -2."),
        (["run", "fig90", "--set", "sizes=100"], "flatmin: fig90: sizes must be at most 99."),
        (["run", "fig90", "--device", "abacus"], "flatmin: fig90: device must be one this"),
        (["run", "fig90", "--data", "nowhere"], "flatmin: nowhere does not exist"),
        (["run", "all", "--data", "nowhere"], "flatmin: nowhere does not exist"),
        (["run", "table91", "--seeds", "2"], "flatmin: table91: there is no option 'seeds'"),
        (["run", "all", "--set", "color=red"], "flatmin: no item has an option 'color'"),
        (["run", "fig90", "--out", "taken"], "flatmin: the output folder must be writable"),
        (["run", "fig90", "--speed", "9"], "flatmin run: unrecognized arguments: --speed 9"),
        (["run", "fig90", "--set", "trouble=value"], "flatmin: the sum must be four, got five."),
        (["report"], "flatmin: results holds no results; compute some"),
        (["report", "--out", "taken"], "flatmin: taken holds no results"),
    ],
)  # fmt: skip
def test_bad_input_is_answered_by_one_sentence_and_two(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").write_text("")
    try:
        code = main(words)
    except SystemExit as stop:
        code = int(str(stop.code))
    assert code == 2
    assert last_line(capsys).startswith(sentence)
    assert not list(Path().glob("*/*.json"))


def test_bad_input_is_found_before_anything_is_computed() -> None:
    assert main(["run", "all", "--out", "new", "--set", "sizes=1", "size=big"]) == 2
    assert not Path("new").exists()


def test_one_failing_item_costs_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "all", "--set", "trouble=value"]) == 1
    errors = capsys.readouterr().err
    assert "fig90 failed: the sum must be four, got five." in errors
    assert "Traceback" not in errors
    assert record("table91")
    assert main(["run", "all", "--set", "trouble=key"]) == 1
    assert "Traceback" in capsys.readouterr().err  # a bug, and not the user's


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        main(["run", "fig90", "--set", "trouble=key"])
    try:
        int("x" * (1 == 1))
    except ValueError as error:
        assert not cli.is_ours(error)


@pytest.mark.parametrize("item", ["all", "fig90"])
def test_an_interruption_exits_with_130(item: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "table91"]) == 0
    assert main(["run", item, "--set", "trouble=stop"]) == 130
    assert last_line(capsys) == (
        "flatmin: interrupted in fig90; what is finished is kept in results, and the same command "
        "goes on from there."
    )
    assert not Path("results/fig90.json").exists()
    assert record("table91")
    assert main(["run", "all"]) == 0  # goes on: the finished item is kept
    assert "table91: nothing to judge (kept from before" in capsys.readouterr().out


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "all", "--quick"])
    capsys.readouterr()
    assert main(["report"]) == 0
    assert capsys.readouterr().out == f"{Path('results', 'index.html')}\n"
    Path("results/fig90.json").write_text("{")
    assert main(["report"]) == 1
    assert "fig90.json is no complete record" in capsys.readouterr().err


@pytest.mark.slow
def test_python_m_flatmin_is_the_command() -> None:
    command = [sys.executable, "-m", "flatmin", "run", "figure nine"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("flatmin: there is no item 'figure nine'; the items are fig1, ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_help_imports_no_figures_and_no_data() -> None:
    code = (
        "import sys\nfrom flatmin.cli import main\nmain(['--help'])\n"
        "bad = {'matplotlib', 'sklearn', 'pyarrow', 'flatmin.experiments'} & set(sys.modules)\n"
        "sys.exit(', '.join(bad) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_verb_has_its_module(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in cli.VERBS:
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
        assert f"usage: flatmin {verb} " in capsys.readouterr().out
