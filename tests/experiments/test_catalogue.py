"""The items of the report are found by their file names, without importing them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flatmin import experiments
from flatmin.experiments import discover

AddItem = Callable[[str, str], None]


def test_the_reports_items_are_there_in_its_order() -> None:
    found = list(discover())
    wanted = ["fig1", "fig2", "fig3", "fig4", "fig6", "table2"]
    assert [name for name in found if name in wanted] == wanted


def test_items_are_found_by_file_name_in_order(two_items: None, add_item: AddItem) -> None:
    empty = '"""T.\n\nClaim: C.\n"""\n'
    for stem in ("fig100_b", "fig9_c", "ext_time_left", "_hidden", "table2_z"):
        add_item(stem, empty)
    Path(*experiments.__path__, "fig7_in_no_wing.py").write_text(empty)
    assert list(discover()) == ["fig9", "fig90", "fig100", "table2", "table91", "ext_time_left"]


def test_an_item_is_described_by_its_docstring(two_items: None) -> None:
    item = discover()["fig90"]
    assert (item.title, item.claim) == ("A made-up item", "Two and two is four.")
    # Nothing was imported for it.
    assert "flatmin.experiments.made_up.fig90_made_up" not in sys.modules


@pytest.mark.parametrize("text", ["", '"""Title."""', '"""T.\n\nClaim: a\n\nClaim: b\n"""'])
def test_an_item_without_claim_is_refused(add_item: AddItem, text: str) -> None:
    add_item("fig1_x", text)
    with pytest.raises(RuntimeError, match=r"fig1_x\.py must have a title and one paragraph"):
        discover()


def test_two_files_for_an_item_are_refused(two_items: None, add_item: AddItem) -> None:
    add_item("fig90_again", '"""T.\n\nClaim: C.\n"""\n')
    with pytest.raises(RuntimeError, match="two files are named for the item fig90"):
        discover()
