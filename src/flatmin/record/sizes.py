"""How large a result was computed, in words; and a page without the paths of a machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flatmin.record.blocks import written

# What says how large something is, as far as an item has such an option.
_WORDS = {
    "model": "{}",
    "images": "{} training images",
    "pixels": "{0} × {0} pixels",
    "seeds": "{} seeds",
    "epochs": "{} epochs",
    "rounds": "{} rounds of timing",
}


def size_in_words(record: Mapping[str, Any]) -> str:
    """At which size an item was computed, and whether by its own options.

    Args:
        record: The record of an item.

    Returns:
        A sentence or two.

    Example:
        >>> size_in_words({"mode": "FULL", "changed": [], "config": {"seeds": 5, "images": 2500}})
        'Computed with 2,500 training images, 5 seeds.'
    """
    config = record["config"]
    parts = [
        _counted(words, value)
        for name, words in _WORDS.items()
        if (value := config.get(name)) not in (None, 0)
    ]
    said = f"Computed with {', '.join(parts)}." if parts else "Computed in full."
    if record["mode"] == "QUICK":
        size = f": {', '.join(parts)}" if parts else ""
        said = f"Computed at **QUICK**, small enough to try out, too small to quote{size}."
    return f"{said} What was set by hand is marked under Options." if record["changed"] else said


def option_rows(record: Mapping[str, Any]) -> list[list[object]]:
    """The options of a record as rows of a table, with a mark where one was set by hand."""
    return [
        [name, without_folders(value) if isinstance(value, str) else value]
        + (["set by hand" if name in record["changed"] else ""] if record["changed"] else [])
        for name, value in record["config"].items()
    ]


def without_folders(text: str) -> str:
    """A text in which of a path outside of the project the last name is left.

    Example:
        >>> without_folders("flatmin run fig7 --data /data/mine/cifar10 --out docs/results")
        'flatmin run fig7 --data …/cifar10 --out docs/results'
    """
    return re.sub(r"(?<![^\s=])(?:~|\.\.)?/\S*?([^/\s]+)/?(?=\s|$)", r"…/\1", text)


def _counted(words: str, value: Any) -> str:
    said = words.format(f"{value:,}" if isinstance(value, int) else written(value))
    return said.replace("seeds", "seed").replace("epochs", "epoch") if value == 1 else said
