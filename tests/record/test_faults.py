"""One thing that is broken costs nothing else, and one sentence says what is not done."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import flatmin
from flatmin.analysis.landscape_figure import landscape_figure
from flatmin.cli import main
from flatmin.compare import runs as comparing
from flatmin.compare.runs import Runs
from flatmin.experiments import discover
from flatmin.experiments.images._data import ImageOptions, load
from flatmin.models import ReportMLP
from flatmin.record.files import alone, read_checked, read_json, write_atomically, write_checked
from flatmin.record.store import config_dict
from flatmin.train import TrainConfig, Trained, train
from slowly import slow_but

PACKAGE = Path(flatmin.__file__).parent.parent


@pytest.fixture(autouse=True)
def _in_an_empty_folder(two_items: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", [*sys.path])


def change(path: Path, *keys: Any, to: Any) -> None:
    """Change one value of a record."""
    record = inner = json.loads(path.read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    path.write_text(json.dumps(record))


INNER: list[tuple[tuple[Any, ...], Any]] = [
    (("numbers",), {}),
    (("numbers", "pair"), "text"),
    (("numbers", "pair"), {"a": [{}]}),
    (("numbers", "pair"), [1, "x", None]),
    (("changed",), [["seeds"]]),
    (("changed",), [3]),
    (("provenance",), {}),
    (("provenance", "dirty"), {}),
    (("provenance", "commit"), None),
    (("provenance", "seconds"), "soon"),
    (("config",), {"seeds": {"a": 1}}),
    (("title",), 3),
    (("mode",), "BOTH"),
]


@pytest.mark.parametrize(("keys", "value"), slow_but(INNER, INNER[0], INNER[3], INNER[7], INNER[9]))
def test_a_record_of_a_wrong_inner_type_costs_no_other(
    keys: tuple[Any, ...], value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "all"]) == 0
    change(Path("results/fig90.json"), *keys, to=value)
    capsys.readouterr()
    code = main(["report"])
    errors = capsys.readouterr().err.splitlines()
    assert (code, len(errors)) in {(0, 0), (1, 1)}
    assert all(line.startswith("flatmin: fig90.json ") for line in errors)
    assert ("not fit" in errors[0] or "no complete" in errors[0]) if errors else True
    page = Path("results/index.html").read_text()
    assert 'id="table91"' in page and ('id="fig90"' in page) == (not errors)


@pytest.mark.parametrize(
    "content", slow_but([b"\xff\xfe", b"[" * 100_000, b'{"item": NaN'], b"\xff\xfe")
)
def test_nor_does_one_that_cannot_be_read(content: bytes) -> None:
    assert main(["run", "all"]) == 0
    Path("results/fig90.json").write_bytes(content)
    assert main(["report"]) == 1
    Path("results/fig90.json").unlink()
    os.mkfifo("results/fig90.json")  # reading it would never end
    assert main(["report"]) == 1
    assert 'id="table91"' in Path("results/index.html").read_text()


def test_a_kept_record_that_cannot_be_shown_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "all"]) == 0
    change(Path("results/fig90.json"), "numbers", to={"pair": 3})
    assert main(["run", "fig90"]) == 2
    assert "fig90.json does not fit this version" in capsys.readouterr().err
    assert main(["run", "all"]) == 1
    shown = capsys.readouterr()
    assert "table91: nothing to judge" in shown.out and "Traceback" not in shown.err
    assert main(["run", "fig90", "--force"]) == 0


def test_a_terminal_that_knows_no_signs_but_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    ascii_terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", ascii_terminal)
    Path("own_ascii.py").write_text(
        "import torch\ndef batches(): return [(torch.ones(4, 2), torch.tensor([0, 1, 0, 1]))]\n"
    )
    words = ["--measure", "average", "one-step", "--grid", "0", "--scalings", "0"]
    assert main(["run", "fig90"]) == 0
    assert main(["report"]) == 0
    assert main(["measure", "flatmin.models:ReportMLP", "--data", "own_ascii:batches", *words]) == 0
    assert main(["--help"]) == 0
    print("–")
    ascii_terminal.flush()
    shown = ascii_terminal.buffer.getvalue()  # type: ignore[attr-defined]
    assert b"\\xb1 error" in shown and b"\\u2013" in shown
    assert "✓ holds" in Path("results/fig90.md").read_text("utf-8")


@pytest.mark.slow
def test_an_ascii_terminal_in_a_process_of_its_own() -> None:
    for changes in (
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ):
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE), **changes}
        for words in (["list"], ["run", "fig6", "--quick", "--force"]):
            command = [sys.executable, "-m", "flatmin", *words]
            done = subprocess.run(command, capture_output=True, check=False, env=environment)
            assert done.returncode == 0, done.stderr.decode()
            done.stdout.decode("ascii")


def test_a_folder_whose_name_is_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    out = os.fsdecode(b"r\xff")
    for verb in (["run", "fig90"], ["run", "fig90"], ["report"]):  # the second time it is kept
        assert main([*verb, "--out", out]) == 0
        assert "r\\udcff" in capsys.readouterr().out
    assert main(["run", "fig90", "--data", out]) == 2
    assert "r\\udcff holds no CIFAR-10" in capsys.readouterr().err


@pytest.mark.slow
def test_names_that_no_figure_can_show(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own_shown.py").write_text(
        "import torch\nfrom flatmin.models import ReportMLP as infinite\n"
        "def batches(): return [(torch.ones(4, 2), torch.tensor([0, 1, 0, 1]))]\n"
    )
    words = [
        "--measure",
        "one-step",
        "--scalings",
        "0",
        "--grid",
        "2",
        "--data",
        "own_shown:batches",
    ]
    for name in (os.fsdecode(b"w\xfe.pt"), "a$b_{$.pt", "of_$5.pt"):
        torch.save(ReportMLP().state_dict(), name)
        assert main(["measure", "own_shown:infinite", "--weights", name, *words, "--p", "inf"]) == 0
        assert read_json(Path("results/measure.json"))["network"]["weights"] == name
    figure = landscape_figure(read_json(Path("results/measure.json")))
    title = figure.get_suptitle().splitlines()
    assert title[0] == "own_shown:infinite with of_\\$5.pt; own_shown:batches, 4 examples"
    assert title[1].endswith("p = ∞")


def test_what_is_no_text_comes_back_from_json(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.json", json.dumps(["a\udcff", "–"], ensure_ascii=False))
    assert read_json(tmp_path / "a.json") == ["a\udcff", "–"]


def test_a_full_disk_is_one_sentence_and_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "fig90"]) == 0

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flatmin.record.files.os.fsync", full)
    for words in (["run", "fig90", "--force"], ["run", "all", "--force"], ["report"]):
        capsys.readouterr()
        assert main(words) == 1
        errors = capsys.readouterr().err
        assert "No space left on device; make room, or name another folder" in errors
        assert "Traceback" not in errors
    assert read_json(Path("results/fig90.json"))["numbers"]["sum"] == 4  # the old one, whole


def test_two_runs_of_one_item(capsys: pytest.CaptureFixture[str]) -> None:
    """The second one is refused while the first one computes, and does everything else."""
    key = _scratch()
    with alone(Path("results/.scratch", key)):
        assert main(["run", "fig90", "--quick"]) == 2
        assert (
            f"another process works in {Path('results/.scratch', key)}" in capsys.readouterr().err
        )
        assert main(["run", "all", "--quick"]) == 1
        assert Path("results/table91.json").exists() and not Path("results/fig90.json").exists()
        assert "Traceback" not in capsys.readouterr().err
    assert main(["run", "all", "--quick"]) == 0


def _scratch() -> str:
    """The name of an item's scratch folder."""
    plain = config_dict(discover()["fig90"].load().QUICK)
    return "fig90-" + hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def test_who_waits_goes_on_in_a_folder_that_is_there(tmp_path: Path) -> None:
    """The one before removes it when it is done."""
    folder, seen = tmp_path / "work", []

    def work() -> None:
        with alone(folder, wait=True):
            assert folder.is_dir()
            seen.append(len(list(folder.iterdir())))
            (folder / "part").touch()
            (folder / "part").unlink()
            folder.rmdir()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [0] * 8


DAMAGE: list[Callable[[str], str]] = [
    lambda text: text[: len(text) // 2],
    lambda text: "",
    lambda text: "[]",
    lambda text: text.replace('"test": [', '"tset": ['),
    lambda text: text.replace('"test": [', '"test": [1.0, '),
    lambda text: json.dumps({**json.loads(text), "epochs": 3}),
]


def test_a_damaged_kept_run_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(ImageOptions(images=40, test_images=20), "wrn-10-1")
    config = TrainConfig(model="wrn-10-1", epochs=1, batch_size=20, evaluate_train=0)
    finished = train(config, data)
    trainings = []

    def again(*_: object, **__: object) -> Trained:
        trainings.append(1)
        return finished

    monkeypatch.setattr(comparing, "train", again)
    runs = Runs(data, tmp_path / "runs", "cpu")
    first = runs(config)
    (path,) = runs.folder.iterdir()
    whole = path.read_text()
    for number, damage in enumerate(DAMAGE):
        path.write_text(damage(whole))
        assert runs(config) == first == runs(config)
        assert (path.read_text(), len(trainings)) == (whole, number + 2)
    assert [entry.suffix for entry in runs.folder.iterdir()] == [".json"]


def test_a_damaged_state_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    assert read_checked(path) is None
    write_checked(path, b"weights" * 100)
    assert read_checked(path) == b"weights" * 100
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place])
        assert read_checked(path) is None
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert read_checked(path) is None
