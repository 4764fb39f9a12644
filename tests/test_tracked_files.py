"""What git tracks holds no path of a machine, no address of a registry, and no large file."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LARGEST = 2**20  # bytes

# Absolute paths below a personal folder, and hosts that serve packages. Written so that this file
# does not match itself; a letter or dot before the slash makes it a part of an address.
FOREIGN = re.compile(
    rb"(?<![\w.~-])/(?:root|work|home|Users)/[\w.]|pypi\.(?:org|python)|pythonhosted\.org"
    rb"|download\.pytorch\.org"
)


def tracked_files() -> list[Path]:
    """Ask git, or walk past what git ignores where there is no checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        ignored = {"results", "runs", "dist", "build"}
        paths = [
            path
            for path in ROOT.rglob("*")
            if (parts := path.relative_to(ROOT).parts)[0] not in ignored
            and (parts[0] == ".ci" or not parts[0].startswith("."))
            and not any(part == "__pycache__" or part.endswith(".egg-info") for part in parts)
        ]
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = {
        str(path.relative_to(ROOT)): match.group().decode()
        for path in tracked_files()
        if (match := FOREIGN.search(path.read_bytes()))
    }
    assert not found


def test_no_file_is_large() -> None:
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked_files()}
    assert not {name: size for name, size in sizes.items() if size > LARGEST}
    assert "pyproject.toml" in sizes


@pytest.mark.parametrize("text", ["open('{}root/x')", "--data {}work/data", '"{}home/a/b"'])
def test_foreign_paths_would_be_noticed(text: str) -> None:
    assert FOREIGN.search(text.format("/").encode())


@pytest.mark.parametrize("text", ["https://example.com/work/a", "../home/b", "src/root/x", "/tmp/"])
def test_other_paths_pass(text: str) -> None:
    assert not FOREIGN.search(text.encode())
