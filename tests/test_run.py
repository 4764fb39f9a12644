"""The bootstrap, against a made-up environment: it never installs anything here."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


class Bootstrap:
    """`run.py` in an empty project, with programs that only note how they were called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = importlib.util.spec_from_file_location("run", ROOT / "run.py")
        assert spec is not None and spec.loader is not None
        self.run: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.run)
        self.environment = folder / ".venv"
        for name in ("pyproject.toml", "constraints.txt"):
            (folder / name).write_text("first")
        monkeypatch.setattr(self.run, "ROOT", folder)
        monkeypatch.setattr(self.run, "ENVIRONMENT", self.environment)
        monkeypatch.setattr(self.run, "PROGRAMS", self.environment / "bin")
        monkeypatch.setattr(self.run, "STAMP", self.environment / "installed.txt")
        monkeypatch.setattr(self.run, "call", self.call)
        monkeypatch.setattr(self.run.venv, "create", self.create)
        self.calls: list[tuple[str, ...]] = []
        self.codes: dict[str, int] = {}

    def create(self, environment: Path, with_pip: bool) -> None:
        assert with_pip
        (environment / "bin").mkdir(parents=True)
        (environment / "bin" / "python").touch(mode=0o755)
        (environment / "pyvenv.cfg").touch()

    def call(self, program: str, *arguments: str, folder: Path | None = None) -> int:
        words = (program, *arguments)
        self.calls.append(words)
        if self.codes.get("interrupt") == len(self.calls):
            raise KeyboardInterrupt
        return next((code for word, code in self.codes.items() if word in words), 0)

    def start(self, *arguments: str) -> int:
        self.calls.clear()
        return int(self.run.main(list(arguments)))

    @property
    def installs(self) -> int:
        return sum("pip" in words for words in self.calls)


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bootstrap:
    return Bootstrap(tmp_path, monkeypatch)


def test_it_installs_once(bootstrap: Bootstrap) -> None:
    assert bootstrap.start("test") == 0
    assert bootstrap.installs == 1
    assert bootstrap.start("test") == 0
    assert bootstrap.calls == [("python", "-m", "pytest", "-n", "auto", "--dist", "loadgroup")]


def test_it_installs_again_in_place_when_the_versions_change(bootstrap: Bootstrap) -> None:
    bootstrap.start("test")
    kept = bootstrap.environment / "kept"
    kept.touch()
    (bootstrap.run.ROOT / "constraints.txt").write_text("second")
    bootstrap.start("test")
    assert bootstrap.installs == 1
    assert kept.exists()


@pytest.mark.parametrize("codes", [{"pip": 1}, {"interrupt": 1}])
def test_a_half_made_environment_is_made_anew(bootstrap: Bootstrap, codes: dict[str, int]) -> None:
    bootstrap.codes = codes
    assert bootstrap.start("test") in (1, 130)
    leftover = bootstrap.environment / "leftover"
    leftover.touch()
    bootstrap.codes = {}
    assert bootstrap.start("test") == 0
    assert bootstrap.installs == 1
    assert not leftover.exists()


def test_an_environment_without_its_python_is_made_anew(bootstrap: Bootstrap) -> None:
    bootstrap.start("test")
    (bootstrap.environment / "bin" / "python").unlink()
    assert bootstrap.start("test") == 0
    assert bootstrap.installs == 1


def test_an_environment_made_by_hand_is_kept(bootstrap: Bootstrap) -> None:
    bootstrap.create(bootstrap.environment, with_pip=True)
    kept = bootstrap.environment / "kept"
    kept.touch()
    bootstrap.codes = {"pip": 1}
    assert bootstrap.start("test") == 1
    bootstrap.codes = {}
    assert bootstrap.start("test") == 0
    assert kept.exists()


def test_reproduce_runs_then_reports(bootstrap: Bootstrap, capsys: pytest.CaptureFixture) -> None:
    bootstrap.start("test")
    assert bootstrap.start("reproduce", "--data", "cifar") == 0
    assert bootstrap.calls == [
        ("flatmin", "run", "all", "--quick", "--data", "cifar"),
        ("flatmin", "report"),
    ]
    assert str(Path("results", "index.html")) in capsys.readouterr().err


@pytest.mark.parametrize(("code", "calls"), [(1, 2), (2, 1), (130, 1)])
def test_reproduce_hands_on_the_exit_code(bootstrap: Bootstrap, code: int, calls: int) -> None:
    bootstrap.start("test")
    bootstrap.codes = {"run": code}
    assert bootstrap.start("reproduce") == code
    assert len(bootstrap.calls) == calls


def test_all_adds_the_slow_tests(bootstrap: Bootstrap) -> None:
    bootstrap.start("test")
    bootstrap.start("test", "--all", "-x")
    assert bootstrap.installs == 1  # what the site needs
    bootstrap.start("test", "--all", "-x")
    assert bootstrap.calls == [
        ("python", "-m", "pytest", "-n", "auto", "--dist", "loadgroup", "-m", "", "-x")
    ]
    bootstrap.start("test", "-m", "slow")
    assert bootstrap.installs == 0


def test_check_runs_every_tool_though_one_fails(bootstrap: Bootstrap) -> None:
    bootstrap.start("test")
    bootstrap.codes = {"format": 1}
    assert bootstrap.start("check") == 1
    assert [words[2] for words in bootstrap.calls] == ["ruff", "ruff", "mypy"]


def test_docs_adds_what_it_needs_once(bootstrap: Bootstrap) -> None:
    bootstrap.start("test")
    assert bootstrap.start("docs") == 0
    assert bootstrap.installs == 1
    assert bootstrap.calls[0][-1] == f"{bootstrap.run.ROOT}[experiments,dev,docs]"
    assert bootstrap.start("docs", "-T") == 0
    site = str(Path("docs", "_build", "html"))
    sphinx = ("python", "-m", "sphinx", "-E", "-W", "--keep-going", "-q", "-T", "docs", site)
    assert bootstrap.calls == [sphinx]
    bootstrap.start("test")
    assert bootstrap.installs == 0


def test_docs_adds_again_when_the_versions_change(bootstrap: Bootstrap) -> None:
    bootstrap.start("docs")
    assert bootstrap.installs == 2
    (bootstrap.run.ROOT / "constraints.txt").write_text("second")
    bootstrap.start("docs")
    assert bootstrap.installs == 2


@pytest.mark.parametrize("code", ["docs", "sphinx"])
def test_docs_hands_on_what_failed(bootstrap: Bootstrap, code: str) -> None:
    bootstrap.start("test")
    word = f"{bootstrap.run.ROOT}[experiments,dev,docs]" if code == "docs" else code
    bootstrap.codes = {word: 3}
    assert bootstrap.start("docs") == 3
    assert len(bootstrap.calls) == (1 if code == "docs" else 2)


@pytest.mark.parametrize("arguments", [["paint"], []])
def test_a_wrong_command_answers_with_the_valid_ones(
    bootstrap: Bootstrap, arguments: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert bootstrap.start(*arguments) == 2
    said = capsys.readouterr().err
    assert "reproduce, test, check, docs" in said
    assert said.count("\n") == 1
    assert not bootstrap.environment.exists()


def test_an_old_python_is_told_so(
    bootstrap: Bootstrap, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    assert bootstrap.start("test") == 2
    assert "needs Python 3.11 or newer" in capsys.readouterr().err


def test_an_interruption_ends_without_a_traceback(bootstrap: Bootstrap) -> None:
    bootstrap.start("test")
    bootstrap.codes = {"interrupt": 1}
    assert bootstrap.start("test") == 130


def test_a_call_ends_with_the_code_of_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("run", ROOT / "run.py")
    assert spec is not None and spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    monkeypatch.setattr(run, "PROGRAMS", Path(sys.executable).parent)
    python = Path(sys.executable).name
    assert run.call(python, "-c", "raise SystemExit(3)") == 3
    if sys.platform != "win32":
        assert run.call(python, "-c", "import os; os.kill(os.getpid(), 9)") == 137
