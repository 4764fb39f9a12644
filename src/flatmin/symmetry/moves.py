"""Entries that are moved: the operation itself, run on unit numbers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from flatmin.symmetry.laws import Move
from flatmin.symmetry.numbering import FIXED, ZERO
from flatmin.symmetry.walk import Walk


def move(walk: Walk, law: Move, node: fx.Node, given: Mapping[str, Any]) -> Any:
    """Run an operation on the unit numbers of what it moves.

    What it fills up with becomes fixed, or a zero.
    """
    if getattr(node.target, "_overloadname", "") == "dtype":
        return None  # reinterprets bits
    arguments, entries = {}, walk.entries()
    for name, value in given.items():
        if name in law.data:
            arguments[name] = fx.node.map_arg(value, lambda each: entries.enter(walk.units(each)))
        elif name in ("value", "fill_value") and isinstance(value, int | float):
            arguments[name] = float(ZERO if value == 0 else FIXED)
        elif name != "other" and any(each in walk.traced.varying for each in _nodes(value)):
            return None  # where entries go depends on the inputs; of "other" only the shape counts
        else:
            arguments[name] = fx.node.map_arg(value, walk.traced.values.__getitem__)
    moved = node.target(**_positional(node, arguments))  # type: ignore[operator]
    if isinstance(moved, tuple | list):
        return [entries.leave(part) for part in moved]
    return entries.leave(moved)


def pick(walk: Walk, node: fx.Node, given: Mapping[str, Any], source: Tensor) -> Any:
    """Look entries up at the indices of the example."""
    values = walk.traced.values
    arguments = {name: fx.node.map_arg(each, values.__getitem__) for name, each in given.items()}
    entries = walk.entries()
    arguments["self"] = entries.enter(source)
    return entries.leave(node.target(**_positional(node, arguments)))  # type: ignore[operator]


def picked_axes(walk: Walk, node: fx.Node, given: Mapping[str, Any]) -> list[int] | None:
    """Return the axes along which indices that depend on the inputs choose; None if unknown."""
    if "indices" in given:
        pairs = [(axis, index) for axis, index in enumerate(given["indices"]) if index is not None]
    else:
        pairs = [(given.get("dim", 0), given.get("index", given.get("indices")))]
    rank = len(walk.shape(given["self"]))
    found: list[int] = []
    for axis, index in pairs:
        value = walk.traced.values[index]
        if value.dtype == torch.bool:
            return None if index in walk.traced.varying else found
        if index in walk.traced.varying:
            found.append(axis % rank)
    return found


def reduced_axes(given: Mapping[str, Any], rank: int) -> list[int]:
    """Return the axes of a reduction; all of them if it names none."""
    dims = given.get("dim")
    if dims is None or dims == []:
        return list(range(rank))
    named = [dims] if isinstance(dims, int) else dims
    return [axis % rank for axis in named] if rank else []


def _positional(node: fx.Node, arguments: dict[str, Any]) -> dict[str, Any]:
    # Defaults that the call did not name are left out: not all of them may be written down.
    named = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
    used = {*named[: len(node.args)], *node.kwargs}
    return {name: value for name, value in arguments.items() if name in used}


def _nodes(value: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(value, found.append)
    return found
