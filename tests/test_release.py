"""What is released: one version, a README that stands alone, a wheel that needs no project."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

import flatmin

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINK = re.compile(r"\]\((?!https?:)")


def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / "release.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def alone(text: str) -> str:
    """README.md as the metadata have it."""
    hook = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    for rule in hook["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    return text


def test_there_is_one_version() -> None:
    assert "version" in PROJECT["project"]["dynamic"] and "version" not in PROJECT["project"]
    assert f"\nversion: {flatmin.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{flatmin.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_outside_the_repository_no_link_of_the_readme_is_dead() -> None:
    text = (ROOT / "README.md").read_text()
    assert LINK.search(text) and not LINK.search(alone(text))
    assert "docs/guarantees.md" in alone(text)  # a name is left where a link was
    assert text.count("```") == alone(text).count("```")


def test_the_lowest_and_the_newest_torch_are_read_from_where_they_stand() -> None:
    lowest, newest = release().torch_versions()
    assert f"torch>={lowest.removesuffix('.0')}" in PROJECT["project"]["dependencies"]
    assert f"torch=={newest}" in (ROOT / "constraints.txt").read_text().splitlines()


@pytest.mark.slow
def test_a_wheel_works_without_the_project(tmp_path: Path) -> None:
    """torch, numpy and mypy are those of this environment; flatmin is the wheel's alone."""
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("flatmin-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "flatmin/py.typed" in names
    assert {name.split("/")[0] for name in names} == {
        "flatmin",
        f"flatmin-{flatmin.__version__}.dist-info",
    }
    venv.create(tmp_path / "venv")
    site = next((tmp_path / "venv").rglob("site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    # A folder in a .pth file is searched, its own .pth files are not: the project is not found.
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    script = tmp_path / "typed.py"
    script.write_text(release().TYPED)
    python = tmp_path / "venv" / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = "import flatmin; print(flatmin.__file__)"
    for command in (["-c", where], [script.name], ["-m", "mypy", "--strict", script.name]):
        done = subprocess.run(
            [python, *command], cwd=tmp_path, env=clean, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        if command[-1] == where:
            assert Path(done.stdout.strip()).is_relative_to(site)
