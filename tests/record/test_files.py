"""A file is there completely or not at all, and its folder is tried before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from flatmin.record import files
from flatmin.record.files import require_writable, write_atomically


def test_writing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "a.txt"
    write_atomically(path, "one")

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"two")
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~files._umask()


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match=r"directory: '[^']*folder'$"):
        write_atomically(tmp_path / "folder", "one")
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch, pytest.raises(PermissionError, match=r"a\.html'$"):
        patch.setattr(files.tempfile, "mkstemp", _denied)
        write_atomically(tmp_path / "folder" / "a.html", "one")


def _denied(**_: object) -> None:
    raise PermissionError(13, "Permission denied", "/.part")


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(ValueError, match=r"must be writable.*results is not .*--out"):
        require_writable(tmp_path / "results")
    with pytest.raises(ValueError, match="--out"):
        require_writable(tmp_path / "results" / "below")
