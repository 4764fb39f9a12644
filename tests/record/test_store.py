"""Items are computed once, and stored whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flatmin.experiments import discover
from flatmin.record.item import Item
from flatmin.record.options import configure
from flatmin.record.store import forget, read_record, run_item

AddItem = Callable[[str, str], None]


def fig90(out: Path, mode: str = "QUICK", **changes: str) -> Item:
    item = discover()["fig90"]
    run_item(item, configure(getattr(item.load(), mode), changes), mode, out)
    return item


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
