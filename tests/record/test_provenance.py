"""A record names the commit of the code that ran, and of nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from flatmin.record import provenance


def test_commit_is_known_in_a_checkout_and_only_for_its_own_files(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        environment = os.environ | {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER")
                                    for what in ("NAME", "EMAIL")}  # fmt: skip
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *arguments],
            check=True, capture_output=True, text=True, env=environment,
        )  # fmt: skip
        return done.stdout.strip()

    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert provenance._checkout(package) == ("unknown", None)
    git("init", "-q")
    (tmp_path / "other").write_text("")
    git("add", "other")
    git("commit", "-qm", "other")
    assert provenance._checkout(package) == ("unknown", None)  # in a repository, not of it
    git("add", "pack")
    git("commit", "-qm", "pack")
    head = git("rev-parse", "HEAD")
    assert provenance._checkout(package) == (head, False)
    (tmp_path / "other").write_text("changed")
    assert provenance._checkout(package) == (head, False)  # not the code that ran
    (package / "new.py").write_text("")
    assert provenance._checkout(package) == (head, True)


def test_without_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance._checkout(provenance.PACKAGE) == ("unknown", None)
