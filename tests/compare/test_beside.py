"""What a task imports from its own folder belongs to it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from small_tasks import DRAWN, TABLE, written

from flatmin.compare import compare
from flatmin.compare.beside import check_fresh, files_beside
from flatmin.compare.loading import load_task

MODEL = "    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))\n"
USUAL: dict[str, Any] = {"epochs": 1, "seeds": 1, "trials": 1, "arms": ["sam"], "workers": 1}


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("beside_"):
            del sys.modules[name]


def test_files_are_found_along_their_imports(tmp_path: Path) -> None:
    for name, text in {
        "task.py": "import torch, a\nfrom pack.deep import thing\n",
        "a.py": "def f():\n    import b\n",
        "b.py": "import a, task\n",
        "c.py": "",
        "pack/__init__.py": "",
        "pack/deep.py": "from . import beside\nfrom .. import outside\nfrom ....x import y\n",
        "pack/beside.py": "no python at all",
        "pack/other.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = [str(file.relative_to(tmp_path)) for file in files_beside(tmp_path / "task.py")]
    assert found == ["a.py", "b.py", "pack/__init__.py", "pack/beside.py", "pack/deep.py"]


def test_a_changed_file_beside_it_makes_another_task(tmp_path: Path) -> None:
    """Or the runs that were kept would answer for a loss that nobody trains with any more."""
    helper = tmp_path / "beside_gain.py"
    helper.write_text("GAIN = 1.0\n")
    text = DRAWN.replace("import torch\n", "import torch\nfrom beside_gain import GAIN\n", 1)
    path = written(tmp_path, text, ("(1.0 + noise[1].item())", "GAIN"))
    alone = load_task(written(tmp_path, DRAWN, name="alone.py")).digest
    compare(path, **USUAL, out=tmp_path / "out")
    runs = set((tmp_path / "out" / "runs").glob("*.json"))
    (tmp_path / "unrelated.py").write_text("")
    compare(path, **USUAL, out=tmp_path / "out")
    assert set((tmp_path / "out" / "runs").glob("*.json")) == runs
    # Of another length, for Python tells files of one second apart by nothing else.
    helper.write_text("GAIN = 2.00\n")
    with pytest.raises(ValueError, match=r"beside_gain\.py has changed since this Python imported"):
        compare(path, **USUAL, out=tmp_path / "out")
    # Another Python has another memory.
    del sys.modules["beside_gain"]
    from flatmin.compare import beside

    beside._texts.clear()
    found = compare(path, **USUAL, out=tmp_path / "out")
    assert found.record["differences"][0]["value"] == pytest.approx(2.0)
    assert load_task(tmp_path / "alone.py").digest == alone


def test_a_name_that_means_another_file_is_refused(tmp_path: Path) -> None:
    text = TABLE.replace("import torch\n", "import torch\nimport beside_net\n", 1)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "beside_net.py").write_text(f"WIDTH = {len(folder)}  # {folder}\n")
        written(tmp_path / folder, text)
    load_task(tmp_path / "one" / "task.py")
    with pytest.raises(ValueError, match="imports beside_net, and this Python has another one"):
        load_task(tmp_path / "two" / "task.py")
    check_fresh([tmp_path / "one" / "beside_net.py"])
