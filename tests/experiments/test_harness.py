"""Items are found, computed once, and stored whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flatmin.experiments import _files, _provenance
from flatmin.experiments._files import require_writable, write_atomically
from flatmin.experiments._harness import Item, discover, forget, read_record, run_item
from flatmin.experiments._options import configure

AddItem = Callable[[str, str], None]


def fig90(out: Path, mode: str = "QUICK", **changes: str) -> Item:
    item = discover()["fig90"]
    run_item(item, configure(getattr(item.load(), mode), changes), mode, out)
    return item


def test_the_reports_items_are_there_in_its_order() -> None:
    found = list(discover())
    wanted = ["fig1", "fig2", "fig3", "fig4", "fig6", "table2"]
    assert [name for name in found if name in wanted] == wanted


def test_items_are_found_by_file_name_in_order(two_items: None, add_item: AddItem) -> None:
    empty = '"""T.\n\nClaim: C.\n"""\n'
    for stem in ("fig100_b", "fig9_c", "ext_time_left", "_hidden", "table2_z"):
        add_item(stem, empty)
    assert list(discover()) == ["fig9", "fig90", "fig100", "table2", "table91", "ext_time_left"]


def test_an_item_is_described_by_its_docstring(two_items: None) -> None:
    item = discover()["fig90"]
    assert (item.title, item.claim) == ("A made-up item", "Two and two is four.")
    assert "flatmin.experiments.fig90_made_up" not in sys.modules  # nothing was imported for it


@pytest.mark.parametrize("text", ["", '"""Title."""', '"""T.\n\nClaim: a\n\nClaim: b\n"""'])
def test_an_item_without_claim_is_refused(add_item: AddItem, text: str) -> None:
    add_item("fig1_x", text)
    with pytest.raises(RuntimeError, match=r"fig1_x\.py must have a title and one paragraph"):
        discover()


def test_two_files_for_an_item_are_refused(two_items: None, add_item: AddItem) -> None:
    add_item("fig90_again", '"""T.\n\nClaim: C.\n"""\n')
    with pytest.raises(RuntimeError, match="two files are named for the item fig90"):
        discover()


def test_a_record_says_what_and_where_from(two_items: None, tmp_path: Path) -> None:
    item = fig90(tmp_path, seeds="3", sizes="5,6")
    record = read_record(item, tmp_path)
    assert record is not None
    assert (record["item"], record["mode"], record["changed"]) == (
        "fig90",
        "QUICK",
        ["seeds", "sizes"],
    )
    assert record["config"]["sizes"] == [5, 6]
    assert record["numbers"]["gap"] == [1.0, None]  # JSON has no NaN
    origin = record["provenance"]
    assert origin["seeds"] == 3 and origin["seconds"] >= 0 and origin["threads"] >= 1
    assert {"commit", "dirty", "command", "python", "torch", "numpy", "device", "date"} <= set(
        origin
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fig90.json", "items"]


def test_an_interrupted_run_leaves_its_parts_and_no_record(two_items: None, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fig90(tmp_path, trouble="stop")
    (scratch,) = (tmp_path / ".scratch").iterdir()
    assert (scratch / "calls").read_text() == "xx"  # the second run found what the first had left
    assert not (tmp_path / "fig90.json").exists()
    item = fig90(tmp_path)  # another configuration has parts of its own
    record = read_record(item, tmp_path)
    assert record is not None and record["numbers"]["calls"] == 1
    assert list((tmp_path / ".scratch").iterdir()) == [scratch]


def test_what_is_forgotten_is_computed_anew(two_items: None, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fig90(tmp_path, trouble="stop")
    (scratch,) = (tmp_path / ".scratch").iterdir()
    forget([discover()["table91"]], tmp_path)
    assert (scratch / "calls").read_text() == "xx"  # another item's parts are left alone
    forget([discover()["fig90"]], tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fig90(tmp_path, trouble="stop")
    assert (scratch / "calls").read_text() == "x"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace('"fig90"', '"fig91"'),
        lambda text: text.replace('"config": {', '"confog": {'),
        lambda text: text.replace('"mode": "QUICK"', '"mode": 3'),
    ],
)
def test_no_damaged_record_is_taken_for_a_result(
    two_items: None, tmp_path: Path, damage: Callable[[str], str]
) -> None:
    item = fig90(tmp_path)
    path = tmp_path / "fig90.json"
    path.write_text(damage(path.read_text()))
    assert read_record(item, tmp_path) is None


def test_a_missing_record_is_none(two_items: None, tmp_path: Path) -> None:
    assert read_record(discover()["fig90"], tmp_path) is None


def test_lists_of_numbers_stand_on_one_line(two_items: None, tmp_path: Path) -> None:
    fig90(tmp_path)
    text = (tmp_path / "fig90.json").read_text()
    assert '"gap": [ 1.0, null ]' in text
    assert json.loads(text)["claim"] == "Two and two is four."


def test_writing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "a.txt"
    write_atomically(path, "one")

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(_files.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"two")
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_files._umask()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(ValueError, match=r"must be writable.*results is not .*--out"):
        require_writable(tmp_path / "results")
    with pytest.raises(ValueError, match="--out"):
        require_writable(tmp_path / "results" / "below")


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
    assert _provenance._checkout(package) == ("unknown", None)
    git("init", "-q")
    (tmp_path / "other").write_text("")
    git("add", "other")
    git("commit", "-qm", "other")
    assert _provenance._checkout(package) == ("unknown", None)  # in a repository, not of it
    git("add", "pack")
    git("commit", "-qm", "pack")
    head = git("rev-parse", "HEAD")
    assert _provenance._checkout(package) == (head, False)
    (tmp_path / "other").write_text("changed")
    assert _provenance._checkout(package) == (head, False)  # not the code that ran
    (package / "new.py").write_text("")
    assert _provenance._checkout(package) == (head, True)


def test_without_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _provenance._checkout(_provenance.PACKAGE) == ("unknown", None)
